/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Deliberate mistakes for the crash tests, which must notice each of them. Only the copy of this
 * room that the crash tests link is compiled with them (FDIO_JOURNAL_MUTATE); elsewhere
 * JOURNAL_MUTATED is a constant false. A test sets journal_mutation before the journal starts.
 */
#ifndef FDIO_JOURNAL_MUTATION_H
#define FDIO_JOURNAL_MUTATION_H

#include <stdbool.h>

enum journal_mutation {
	JOURNAL_MUTATION_NONE,
	JOURNAL_MUTATION_NO_PREFLUSH,
	JOURNAL_MUTATION_NO_FUA,
	JOURNAL_MUTATION_NO_REVOKE,
	JOURNAL_MUTATION_NO_ESCAPE,
	JOURNAL_MUTATION_NO_TAIL_FLUSH,
	JOURNAL_MUTATION_NO_FREEZE,
	JOURNAL_MUTATION_NO_ROLLBACK,
	JOURNAL_MUTATION_EARLY_REUSE,
	JOURNAL_MUTATION_NO_TAIL_FUA,
	JOURNAL_MUTATION_LATE_START,
	JOURNAL_MUTATION_NO_REPLAY_FLUSH,
	JOURNAL_MUTATION_COUNT
};
#ifdef FDIO_JOURNAL_MUTATE
extern enum journal_mutation journal_mutation;
/*
 * The log is emptied only when a handle waits for its space, so that freed log space is written
 * over at once (JOURNAL-7).
 */
extern bool journal_test_lazy;
#define JOURNAL_LAZY journal_test_lazy
#define JOURNAL_MUTATED(m) (journal_mutation == (m))
/*
 * Widens the moment between closing a transaction and copying its images, in which handles change
 * the blocks (JOURNAL-2).
 */
void journal_test_pause(void);
#else
#define JOURNAL_MUTATED(m) false
#define JOURNAL_LAZY false
static inline void journal_test_pause(void) { }
#endif

#endif
