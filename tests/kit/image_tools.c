/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fake device and the outside world: images in files, and mke2fs, e2fsck and debugfs on a
 * temporary copy of the image. The copies live in $TMPDIR (or /tmp) and are removed at once. The
 * test's thread.
 */
#include "kit/device_types.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int fake_load(struct fake_dev *fake, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t o = 0;
	ssize_t n = 0;
	uint8_t *img;

	if (fd < 0)
		return -errno;
	img = fake_image_new(fake->size);
	/* Skips holes of the file, so that they take no memory. */
	while (o < fake->size) {
		off_t data = lseek(fd, o, SEEK_DATA);
		if (data < 0 || (uint64_t)data >= fake->size)
			break;
		off_t end = lseek(fd, data, SEEK_HOLE);
		uint64_t hi = end < 0 || (uint64_t)end > fake->size ? fake->size : (uint64_t)end;
		for (o = data; o < hi; o += n) {
			n = pread(fd, img + o, hi - o, o);
			if (n <= 0)
				goto out;
		}
	}
out:
	fdio_mutex_lock(&fake->lock);
	fake_image_flush(fake, UINT64_MAX);
	fake_image_free(fake->now, fake->size);
	fake_image_free(fake->media, fake->size);
	fake->now = img;
	fake->media = fake_image_new(fake->size);
	fake_image_copy(fake->media, fake->now, fake->size);
	fdio_mutex_unlock(&fake->lock);
	close(fd);
	return n < 0 ? -EIO : 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 8) {
		uint64_t v;
		memcpy(&v, p + i, 8);
		if (v)
			return false;
	}
	return true;
}

int fake_save(struct fake_dev *fake, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int err = 0;

	if (fd < 0)
		return -errno;
	fdio_mutex_lock(&fake->lock);
	if (ftruncate(fd, fake->size))
		err = -errno;
	for (uint64_t o = 0; o < fake->size && !err; o += 65536) {
		size_t n = FDIO_MIN(fake->size - o, (uint64_t)65536);
		if (!all_zero(fake->now + o, n) && pwrite(fd, fake->now + o, n, o) != (ssize_t)n)
			err = -EIO;
	}
	fdio_mutex_unlock(&fake->lock);
	close(fd);
	return err;
}

static int temp_name(char *path, size_t cap)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	snprintf(path, cap, "%s/fusedio-test-XXXXXX", dir && *dir ? dir : "/tmp");
	fd = mkstemp(path);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* As fake_run, on the image in the file img. */
static int shell(const char *img, const char *cmd, char *out, size_t cap)
{
	char *line = NULL;
	size_t got = 0, n;
	char spill[2048];
	FILE *p;

	if (asprintf(&line, "IMG='%s'; PATH=\"$PATH:/usr/sbin:/sbin\"; export IMG PATH; %s", img,
		     cmd) < 0)
		return -1;
	p = popen(line, "re");
	free(line);
	if (!p)
		return -1;
	while ((n = fread(spill, 1, sizeof(spill), p)) > 0) {
		if (!out) {
			fwrite(spill, 1, n, stdout);
			continue;
		}
		n = FDIO_MIN(n, cap - 1 - got);
		memcpy(out + got, spill, n);
		got += n;
	}
	if (out)
		out[got] = 0;
	int st = pclose(p);
	return st >= 0 && WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

int fake_run(struct fake_dev *fake, const char *cmd, char *out, size_t cap, bool reload)
{
	char path[256];
	int err;

	if (temp_name(path, sizeof(path)))
		return -1;
	err = fake_save(fake, path) ? -1 : shell(path, cmd, out, cap);
	if (reload && fake_load(fake, path))
		err = -1;
	unlink(path);
	return err;
}

static int check_with(struct fake_dev *fake, const char *cmd)
{
	char *out = calloc(1, 65536);
	int err;

	FDIO_MUST(out);
	err = fake_run(fake, cmd, out, 65536, false);
	if (err)
		fprintf(stderr, "e2fsck: exit code %d\n%s\n", err, out);
	free(out);
	return err;
}

int fake_e2fsck(struct fake_dev *fake) { return check_with(fake, "e2fsck -fn \"$IMG\" 2>&1"); }

int fake_e2fsck_replay(struct fake_dev *fake)
{
	return check_with(fake, "e2fsck -E journal_only -y \"$IMG\" 2>&1; e2fsck -fn \"$IMG\" "
				"2>&1");
}

struct fake_dev *fake_mkfs_sectors(uint64_t size, uint32_t sector_bytes, const char *args)
{
	struct fake_dev *fake = fake_new(size, sector_bytes);
	char cmd[1024], out[2048] = "";
	int err;

	snprintf(cmd, sizeof(cmd), "mke2fs -q -F %s \"$IMG\" 2>&1", args ? args : "");
	err = fake_run(fake, cmd, out, sizeof(out), true);
	if (err) {
		fprintf(stderr, "mke2fs %s: exit code %d\n%s\n", args ? args : "", err, out);
		fake_free(fake);
		return NULL;
	}
	return fake;
}

struct fake_dev *fake_mkfs(uint64_t size, const char *args)
{
	return fake_mkfs_sectors(size, 512, args);
}
