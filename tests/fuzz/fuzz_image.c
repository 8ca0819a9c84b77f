/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile images: damages an image (fuzz_mutate.c), mounts it and works on it (fuzz_walk.c, which
 * says what must hold). Built twice: with the plain driver, and with FUZZ_LIBFUZZER as a libFuzzer
 * target, whose input is the stream of decisions.
 */
#include "fuzz/fuzz.h"

#include "base/log.h"

#include <stdlib.h>
#include <sys/mman.h>

/* The device of a base; made once, and restored with fuzz_dev_reset for each case. */
static struct fuzz_dev *device(struct base *base)
{
	static struct { struct base *base; struct fuzz_dev *dev; } made[16];
	unsigned k = 0;

	for (; k < ARRAY_SIZE(made) && made[k].base; k++)
		if (made[k].base == base)
			return made[k].dev;
	MUST(k < ARRAY_SIZE(made));
	uint8_t *img = mmap(NULL, base->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, base->fd, 0);
	MUST(img != MAP_FAILED);
	made[k].base = base;
	made[k].dev = fuzz_dev_new(img, base->img, base->size);
	return made[k].dev;
}

static void run_case(const struct image_case *test, bool pristine)
{
	struct fuzz_dev *dev = device(test->base);
	struct walk_result res;
	struct image_case own = *test;

	fuzz_dev_reset(dev);
	case_apply(test, dev);
	/*
	 * A superblock that says panic on errors would end the process; that is no failure, so
	 * such a case goes on after errors.
	 */
	if (test->errors == 0 && dev->img[1024 + 0x3c] == 3)
		own.errors = 1;
	walk_image(&own, dev, pristine, &res);
	if (getenv("FUZZ_STATS"))
		printf("%s: mount %d, opened %u, %u operations, %u met damage, "
		       "%llu blocks by one\n",
		       test->base->name, res.mount, res.opened, res.ops, res.unclean,
		       (unsigned long long)res.work);
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rnd rng = { .data = data, .left = size };
	struct image_case test;

	if (size < 8)
		return 0;
	case_make(&rng, &test);
	if (getenv("FUZZ_SHOW"))
		case_print(&test, stdout);
	run_case(&test, false);
	return 0;
}

#else

static bool setup(void) { return bases_make(getenv("FUZZ_IMAGE")); }

static void run(struct rnd *rng, const char *text, bool show)
{
	struct image_case test;
	bool pristine;

	if (!text)
		case_make(rng, &test);
	else if (!case_parse(text, &test))
		exit(2);
	/* An undamaged image has no damage to find, once its log is replayed. */
	pristine = !test.nr && !test.norecovery;
	if (show)
		case_print(&test, stdout);
	else
		run_case(&test, pristine);
}

static bool save(struct rnd *rng, const char *path)
{
	struct image_case test;
	struct fuzz_dev *dev;
	FILE *f = fopen(path, "we");
	bool ok;

	case_make(rng, &test);
	dev = device(test.base);
	fuzz_dev_reset(dev);
	case_apply(&test, dev);
	ok = f && fwrite(dev->img, 1, dev->size, f) == dev->size;
	if (f && fclose(f))
		ok = false;
	if (!ok)
		fprintf(stderr, "%s cannot be written\n", path);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct fuzz_target target = {
		.name = "fuzz_image",
		.setup = setup,
		.run = run,
		.suffix = ".case",
		.save = save,
		.cpu_s = 10,
		.rss_kib = 600 << 10,
	};
	return fuzz_main(&target, argc, argv);
}

#endif
