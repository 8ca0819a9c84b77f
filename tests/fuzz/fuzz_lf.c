/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What both libFuzzer programs have in common: the start and fuzz_failed. Each runs its cases in
 * the LLVMFuzzerTestOneInput of its own file (fuzz_image.c, fuzz_msg.c).
 */
#include "fuzz/fuzz.h"

#include "base/log.h"

#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);

void fuzz_failed(const char *what, const char *file, int line)
{
	fprintf(stderr, "FUZZ: %s:%d: must hold: %s\n", file, line, what);
	abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (!bases_make(getenv("FUZZ_IMAGE")))
		exit(1);
	fdio_log_set_level(0);
	return 0;
}
