/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile images: see fuzz_mutate.c for what is damaged and fuzz_walk.c for what is done with it. Built twice: with the plain
 * driver, and (FUZZ_LIBFUZZER) as a libFuzzer target, whose input is the stream of decisions.
 */
#include "fuzz/fuzz.h"

#include "base/log.h"

#include <stdlib.h>
#include <sys/mman.h>

static struct fuzz_dev *device(struct base *b)
{
	static struct { struct base *b; struct fuzz_dev *d; } made[16];
	unsigned k = 0;

	for (; k < ARRAY_SIZE(made) && made[k].b; k++)
		if (made[k].b == b)
			return made[k].d;
	MUST(k < ARRAY_SIZE(made));
	uint8_t *img = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, b->fd, 0);
	MUST(img != MAP_FAILED);
	made[k].b = b;
	made[k].d = fuzz_dev_new(img, b->img, b->size);
	return made[k].d;
}

static void run_case(const struct image_case *c, bool pristine)
{
	struct fuzz_dev *d = device(c->b);
	struct walk_result res;
	struct image_case own = *c;

	fuzz_dev_reset(d);
	case_apply(c, d);
	/* A superblock that says panic on errors ends the process by design. */
	if (c->errors == 0 && d->img[1024 + 0x3c] == 3)
		own.errors = 1;
	walk_image(&own, d, pristine, &res);
	if (getenv("FUZZ_STATS"))
		printf("%s: mount %d, opened %u, %u operations, %u met damage, "
		       "%llu blocks by one\n",
		       c->b->name, res.mount, res.opened, res.ops, res.unclean,
		       (unsigned long long)res.work);
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rnd r = { .data = data, .left = size };
	struct image_case c;

	if (size < 8)
		return 0;
	case_make(&r, &c);
	if (getenv("FUZZ_SHOW"))
		case_print(&c, stdout);
	run_case(&c, false);
	return 0;
}

#else

static bool setup(void) { return bases_make(getenv("FUZZ_IMAGE")); }

static void run(struct rnd *r, const char *text, bool show)
{
	struct image_case c;
	bool pristine;

	if (!text)
		case_make(r, &c);
	else if (!case_parse(text, &c))
		exit(2);
	/* Nothing is changed and nothing cut short: then nothing may be found either. */
	pristine = !c.nr && !c.norecovery;
	if (show)
		case_print(&c, stdout);
	else
		run_case(&c, pristine);
}

static bool save(struct rnd *r, const char *path)
{
	struct image_case c;
	struct fuzz_dev *d;
	FILE *f = fopen(path, "we");
	bool ok;

	case_make(r, &c);
	d = device(c.b);
	fuzz_dev_reset(d);
	case_apply(&c, d);
	ok = f && fwrite(d->img, 1, d->size, f) == d->size;
	if (f && fclose(f))
		ok = false;
	if (!ok)
		fprintf(stderr, "%s cannot be written\n", path);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct fuzz_target t = {
		.name = "fuzz_image", .setup = setup, .run = run, .suffix = ".case", .save = save, .cpu_s = 10, .rss_kib = 600 << 10,
	};
	return fuzz_main(&t, argc, argv);
}

#endif
