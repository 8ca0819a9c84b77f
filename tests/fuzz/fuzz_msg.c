/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile FUSE messages, served by everything above the channels in one process (fuzz_msg_world.c
 * says what is checked). A case mounts an image, looks up and opens a few files, and sends random
 * messages (fuzz_msg_make.c) or those that a file of the corpus spells out (fuzz_msg_script.c). A
 * quarter of the cases have a damaged image as well.
 *
 * The kernel is trusted in one thing: it releases a handle only after the handle's other requests
 * were answered.
 *
 * A case of the corpus says "seed N M": the seed and the number of random messages, which come
 * first; "image NAME": that image, undamaged; and has the lines of fuzz_msg_script.c.
 */
#include "fuzz/fuzz_msg.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { MESSAGES = 300 };

/* Looks up some names, and opens these files and the root: later messages are about them. */
static void open_some(struct world *w, struct message *message)
{
	static const char *const names[] = { "frag",   "plain", "attrs",  "unwritten",
					     "sparse", "htree", "acldir", "deep0" };

	for (unsigned k = 0; k < 2 * ARRAY_SIZE(names) + 1; k++) {
		struct fuse_in_header header = { .opcode = k < ARRAY_SIZE(names) ? FUSE_LOOKUP
										 : FUSE_OPEN,
						 .unique = 2 * ++w->sent,
						 .nodeid = FUSE_ROOT_ID };
		struct fuse_open_in open = { .flags = O_RDWR | (k & 1 ? O_DIRECT : 0) };

		message->ring = k & 1;
		message->len = sizeof(header) + sizeof(open);
		memset(message->bytes, 0, 512);
		memcpy(message->bytes + sizeof(header), &open, sizeof(open));
		if (k < ARRAY_SIZE(names)) {
			strcpy((char *)message->bytes + sizeof(header), names[k]);
			message->len = (uint32_t)(sizeof(header) + strlen(names[k]) + 1);
		} else if (k == 2 * ARRAY_SIZE(names)) {
			header.opcode = FUSE_OPENDIR;
		} else if (k - ARRAY_SIZE(names) < w->nr_nodes) {
			header.nodeid = w->nodes[k - ARRAY_SIZE(names)];
		}
		header.len = message->len;
		memcpy(message->bytes, &header, sizeof(header));
		world_send(w, message);
		world_wait_below(w, 1);
	}
}

/* ---- cases ---- */
/* n random messages, then those of text, unless it is NULL. */
static void run_messages(struct rnd *rng, const struct image_case *test, unsigned n,
			 const char *text)
{
	static struct world w;
	struct base *base = test->base;
	struct message *message = malloc(sizeof(*message));
	uint8_t *img = mmap(NULL, base->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, base->fd, 0);

	MUST(message && img != MAP_FAILED);
	memset(&w, 0, sizeof(w));
	w.dev = fuzz_dev_new(img, base->img, base->size);
	case_apply(test, w.dev);
	if (world_new(&w, test)) {
		open_some(&w, message);
		for (unsigned k = 0; k < n && !rnd_over(rng); k++) {
			message_random(&w, rng, message);
			world_send(&w, message);
		}
		if (text)
			send_script(&w, text, message);
		if (getenv("FUZZ_STATS"))
			printf("%s: %u messages, %u answered, %u with success, %u nodes, %u "
			       "handles\n",
			       base->name, w.sent, w.answered, w.succeeded, w.nr_nodes,
			       w.nr_handles);
		world_end(&w);
	} else {
		/* A case that names its image does not damage it. */
		MUST(!text || !strstr(text, "\nimage "));
	}
	fuzz_dev_free(w.dev);
	free(message);
}

static void make_case(struct rnd *rng, struct image_case *test)
{
	bool damaged = !rnd_below(rng, 4);

	case_make(rng, test);
	if (!damaged)
		test->nr = 0;
	if (!test->errors)
		test->errors = 1;
	test->fix_checksums = true;
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rnd rng = { .data = data, .left = size };
	struct image_case test;

	if (size < 16)
		return 0;
	make_case(&rng, &test);
	run_messages(&rng, &test, MESSAGES, NULL);
	return 0;
}

#else

static bool setup(void) { return bases_make(getenv("FUZZ_IMAGE")); }

static void run(struct rnd *rng, const char *text, bool show)
{
	struct image_case test;
	unsigned long long seed;
	unsigned n = MESSAGES;

	if (text) {
		const char *at = strstr(text, "\nseed ");
		if (!at || sscanf(at, " seed %llu %u", &seed, &n) < 1)
			exit(2);
		*rng = rnd_seed(seed);
	}
	make_case(rng, &test);
	if (text && strstr(text, "\nimage ")) {
		char name[32];
		MUST(sscanf(strstr(text, "\nimage "), " image %31s", name) == 1);
		test = (struct image_case) { .base = bases_find(name), .errors = 1 };
		MUST(test.base);
	}
	if (show) {
		case_print(&test, stdout);
		return;
	}
	run_messages(rng, &test, n, text);
}

int main(int argc, char **argv)
{
	static const struct fuzz_target target = {
		.name = "fuzz_msg",
		.setup = setup,
		.run = run,
		.suffix = ".case",
		.cpu_s = 10,
		.rss_kib = 700 << 10,
	};
	return fuzz_main(&target, argc, argv);
}

#endif
