/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device that hangs on command: a FUSE file system of one file, "disk", kept in memory, whose
 * requests can be delayed, held back or failed. The tests put the image of a file system into it
 * and serve that, directly or through a loop device with direct I/O (hangdisk.py).
 *
 *   hangfs MOUNTPOINT IMAGE     copies IMAGE to memory, mounts, and reads commands from standard
 *                               input, one in a line:
 *     hold r|w|f FROM TO        from now on, does not answer reads, writes or flushes that touch
 *                               these bytes
 *     fail r|w|f N              from now on, fails about one in N of these with EIO
 *     slow MS                   from now on, delays each request by so many milliseconds
 *     go                        ends all of that, and answers what is held
 *     stats                     does nothing but print the numbers
 *     save FILE                 writes the contents of the disk to FILE
 *     end                       fails all requests and exits; so does the end of the input
 *
 * It answers each command with "ok HELD FAILED": the requests that are held now, and how many have
 * failed so far. The main thread takes requests and never waits, a second one answers those that
 * are delayed, a third one reads commands.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DISK = 2, NEVER = 1 };

struct later {
	struct later *next;
	fuse_req_t req;
	uint64_t due; /* milliseconds; NEVER: answered by the command go */
	char kind;
	uint64_t off;
	size_t len;
	uint8_t data[];
};

static struct { bool on; uint64_t from, to; } hold[3]; /* r, w, f */
static unsigned fail_one_of[3];
static uint64_t chance = 88172645463325252;
static uint64_t failed;
static const char kinds[] = "rwf";
static unsigned slow_ms;
static uint8_t *disk;
static size_t disk_size;
static struct later *list, **tail = &list;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all of the above */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct fuse_session *session;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A write changes the disk when it is answered, not before. The caller holds the lock. */
static void answer(struct later *later)
{
	if (later->kind == 'r') {
		fuse_reply_buf(later->req, (char *)disk + later->off, later->len);
	} else if (later->kind == 'w') {
		memcpy(disk + later->off, later->data, later->len);
		fuse_reply_write(later->req, later->len);
	} else {
		fuse_reply_err(later->req, 0);
	}
	free(later);
}

static void *answerer(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	for (;;) {
		uint64_t now = now_ms(), next = now + 1000;
		struct timespec ts;

		for (struct later **p = &list; *p;) {
			struct later *l = *p;

			if (l->due != NEVER && l->due <= now) {
				*p = l->next;
				if (!*p)
					tail = p;
				answer(l);
				continue;
			}
			if (l->due != NEVER && l->due < next)
				next = l->due;
			p = &l->next;
		}
		ts = (struct timespec){ .tv_sec = (time_t)(next / 1000),
					.tv_nsec = (long)(next % 1000) * 1000000 };
		pthread_cond_timedwait(&changed, &lock, &ts);
	}
	return NULL;
}

static bool unlucky(unsigned kind)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return fail_one_of[kind] && chance % fail_one_of[kind] == 0;
}

static void take(fuse_req_t req, char kind, uint64_t off, size_t len, const char *data)
{
	unsigned k = (unsigned)(strchr(kinds, kind) - kinds);
	struct later *later;

	if (off > disk_size)
		off = disk_size;
	if (len > disk_size - off)
		len = disk_size - off;
	later = malloc(sizeof(*later) + (data ? len : 0));
	if (!later) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*later = (struct later){ .req = req, .kind = kind, .off = off, .len = len };
	if (data)
		memcpy(later->data, data, len);
	pthread_mutex_lock(&lock);
	if (unlucky(k)) {
		failed++;
		fuse_reply_err(req, EIO);
		pthread_mutex_unlock(&lock);
		free(later);
		return;
	}
	if (hold[k].on && off < hold[k].to && off + len > hold[k].from)
		later->due = NEVER;
	else if (slow_ms)
		later->due = now_ms() + slow_ms;
	if (later->due) {
		*tail = later;
		tail = &later->next;
		pthread_cond_signal(&changed);
	} else {
		answer(later);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- the file system ---- */
static void attributes(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){ .st_ino = ino, .st_nlink = 1, .st_blksize = 4096 };
	st->st_mode = ino == DISK ? S_IFREG | 0600 : S_IFDIR | 0700;
	st->st_size = ino == DISK ? (off_t)disk_size : 0;
	st->st_blocks = (blkcnt_t)(disk_size / 512);
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .ino = DISK, .attr_timeout = 3600, .entry_timeout = 3600 };

	(void)parent;
	attributes(DISK, &e.attr);
	if (strcmp(name, "disk"))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &e);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	attributes(ino, &st);
	fuse_reply_attr(req, &st, 3600);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	take(req, 'r', (uint64_t)off, size, NULL);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	take(req, 'w', (uint64_t)off, size, buf);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	take(req, 'f', 0, disk_size, NULL);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = do_lookup,
	.getattr = do_getattr,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.fsync = do_fsync,
};

/* ---- commands ---- */
static void let_go(void)
{
	memset(hold, 0, sizeof(hold));
	memset(fail_one_of, 0, sizeof(fail_one_of));
	slow_ms = 0;
	while (list) {
		struct later *later = list;

		list = later->next;
		answer(later);
	}
	tail = &list;
}

static unsigned held(void)
{
	unsigned n = 0;

	for (struct later *later = list; later; later = later->next)
		n += later->due == NEVER;
	return n;
}

static bool save(const char *path)
{
	FILE *f = fopen(path, "we");
	bool ok = f && fwrite(disk, 1, disk_size, f) == disk_size;

	return f && !fclose(f) && ok;
}

static bool command(char *line)
{
	unsigned long long from, to;
	char kind, path[512];
	bool ok = true;

	if (sscanf(line, "hold %c %llu %llu", &kind, &from, &to) == 3 && kind &&
	    strchr(kinds, kind)) {
		unsigned k = (unsigned)(strchr(kinds, kind) - kinds);
		hold[k].on = true;
		hold[k].from = from;
		hold[k].to = to;
	} else if (sscanf(line, "fail %c %llu", &kind, &from) == 2 && kind && strchr(kinds, kind)) {
		fail_one_of[strchr(kinds, kind) - kinds] = (unsigned)from;
	} else if (sscanf(line, "slow %llu", &from) == 1) {
		slow_ms = (unsigned)from;
	} else if (!strncmp(line, "go", 2)) {
		let_go();
	} else if (sscanf(line, "save %511s", path) == 1) {
		ok = save(path);
	} else {
		ok = !strncmp(line, "stats", 5);
	}
	printf("%s %u %llu\n", ok ? "ok" : "error", held(), (unsigned long long)failed);
	fflush(stdout);
	return ok;
}

static void *commander(void *arg)
{
	char line[1024];

	(void)arg;
	while (fgets(line, sizeof(line), stdin) && strncmp(line, "end", 3)) {
		pthread_mutex_lock(&lock);
		command(line);
		pthread_mutex_unlock(&lock);
	}
	_exit(0); /* ends the connection, and so every request */
}

static bool load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return false;
	disk_size = (size_t)st.st_size;
	disk = mmap(NULL, disk_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	return disk != MAP_FAILED;
}

int main(int argc, char **argv)
{
	char *fuse_argv[] = { argv[0], (char *)"-o", (char *)"fsname=hangfs,subtype=hangfs", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
	pthread_t t;

	if (argc != 3 || !load(argv[2])) {
		fprintf(stderr, "hangfs MOUNTPOINT IMAGE: %s\n", strerror(errno));
		return 1;
	}
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fuse_session_mount(session, argv[1]) ||
	    pthread_create(&t, NULL, commander, NULL) || pthread_create(&t, NULL, answerer, NULL))
		return 1;
	printf("ok mounted\n");
	fflush(stdout);
	fuse_session_loop(session);
	fuse_session_unmount(session);
	return 0;
}
