/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gate of an inode: counts of direct requests in flight, one cache line for each loop, and the
 * word that keeps new ones out. Entering and leaving run on loop threads and take no lock; closing
 * runs on workers and waits. Only dio_gate_close can fail, for want of memory.
 *
 * States (enum dio_gate_state, kept as two counts of closers in one word):
 *
 *   state      event                     next        function
 *   OPEN       closed for writes         NO_WRITES   dio_gate_close_attached(WRITES)
 *   OPEN       closed for all            SHUT        dio_gate_close_attached(ALL)
 *   NO_WRITES  closed for all            SHUT        dio_gate_close_attached(ALL)
 *   NO_WRITES  its last closer opens     OPEN        dio_gate_open_attached(WRITES)
 *   SHUT       the last closer for all   NO_WRITES if closers for writes are left, else OPEN
 *              opens                                 dio_gate_open_attached(ALL)
 *
 * In OPEN everything enters, in NO_WRITES reads do, in SHUT nothing does. Requests in flight when
 * the state changes go on; dio_gate_close_attached returns when they have left. dio_gate_close does
 * the same for an inode that may not have its struct dio_inode yet, and attaches one.
 *
 * Why no request slips through: entering adds to the loop's count and then reads the gate; closing
 * raises the gate and then reads the counts. All four are sequentially consistent, so at least one
 * side sees the other: the request backs out, or the closer waits for it. In the same way leaving
 * subtracts and then reads gate_waiters, while the closer raises gate_waiters and then reads the
 * counts, so no wake-up is lost. gate_lock is only for sleeping.
 *
 * struct dio_inode outlives every access to it here: the file of a request holds the inode, and
 * done runs after the request has left the gate.
 */
#include "dio/types.h"

static enum dio_gate_state state_of(uint32_t gate)
{
	if (likely(!gate))
		return DIO_GATE_OPEN;
	return gate & DIO_GATE_ALL_MASK ? DIO_GATE_SHUT : DIO_GATE_NO_WRITES;
}

/* kind: DIO_COUNT_. */
static bool is_closed(uint32_t gate, unsigned kind)
{
	enum dio_gate_state state = state_of(gate);

	return kind == DIO_COUNT_WRITE ? state != DIO_GATE_OPEN : state == DIO_GATE_SHUT;
}

void dio_gate_leave(struct dio_inode *dinode, unsigned cpu, unsigned kind)
{
	__atomic_fetch_sub(&dinode->counts[cpu].n[kind], 1, __ATOMIC_SEQ_CST);
	if (likely(!__atomic_load_n(&dinode->gate_waiters, __ATOMIC_SEQ_CST)))
		return;
	fdio_mutex_lock(&dinode->dio->gate_lock);
	pthread_cond_broadcast(&dinode->dio->gate_cond);
	fdio_mutex_unlock(&dinode->dio->gate_lock);
}

bool dio_gate_enter(struct dio_inode *dinode, unsigned cpu, unsigned kind)
{
	__atomic_fetch_add(&dinode->counts[cpu].n[kind], 1, __ATOMIC_SEQ_CST);
	if (likely(!is_closed(__atomic_load_n(&dinode->gate, __ATOMIC_SEQ_CST), kind)))
		return true;
	dio_gate_leave(dinode, cpu, kind);
	fdio_count(COUNTER_dio_gate_diverted);
	return false;
}

static bool is_drained(struct dio_inode *dinode, enum dio_gate_kind kind)
{
	for (unsigned c = 0; c < dinode->dio->config.nr_cpus; c++) {
		if (__atomic_load_n(&dinode->counts[c].n[DIO_COUNT_WRITE], __ATOMIC_SEQ_CST))
			return false;
		if (kind == DIO_GATE_ALL &&
		    __atomic_load_n(&dinode->counts[c].n[DIO_COUNT_READ], __ATOMIC_SEQ_CST))
			return false;
	}
	return true;
}

void dio_gate_close_attached(struct dio_inode *dinode, enum dio_gate_kind kind)
{
	struct dio *dio = dinode->dio;
	uint32_t old = __atomic_fetch_add(
		&dinode->gate, kind == DIO_GATE_ALL ? DIO_GATE_ALL_ONE : DIO_GATE_WRITES_ONE,
		__ATOMIC_SEQ_CST);

	/*
	 * Each thread closes a gate at most a few times at once. 65,536 would carry into the other
	 * half.
	 */
	FDIO_ASSERT((old & 0xffff) != 0xffff && old >> 16 != 0xffff);
	if (is_drained(dinode, kind))
		return;
	fdio_count(COUNTER_dio_gate_wait);
	__atomic_fetch_add(&dinode->gate_waiters, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_lock(&dio->gate_lock);
	while (!is_drained(dinode, kind))
		fdio_cond_wait(&dio->gate_cond, &dio->gate_lock);
	fdio_mutex_unlock(&dio->gate_lock);
	__atomic_fetch_sub(&dinode->gate_waiters, 1, __ATOMIC_SEQ_CST);
}

void dio_gate_open_attached(struct dio_inode *dinode, enum dio_gate_kind kind)
{
	uint32_t one = kind == DIO_GATE_ALL ? DIO_GATE_ALL_ONE : DIO_GATE_WRITES_ONE;
	uint32_t old = __atomic_fetch_sub(&dinode->gate, one, __ATOMIC_SEQ_CST);

	FDIO_ASSERT(kind == DIO_GATE_ALL ? (old & 0xffff) != 0 : old >> 16 != 0);
}

/*
 * May be called with the inode lock held: requests in flight end on loop threads, which do not wait
 * for that lock.
 */
void dio_gate_drain(void *arg)
{
	dio_gate_close_attached(arg, DIO_GATE_ALL);
	dio_gate_open_attached(arg, DIO_GATE_ALL);
}

int dio_gate_close(struct dio *dio, struct ext4_inode *inode, enum dio_gate_kind kind)
{
	struct dio_inode *dinode;
	int err = dio_inode_attach(dio, inode, &dinode);

	if (!err)
		dio_gate_close_attached(dinode, kind);
	return err;
}

void dio_gate_open(struct dio *dio, struct ext4_inode *inode, enum dio_gate_kind kind)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);

	FDIO_ASSERT(dinode && dinode->dio == dio);
	dio_gate_open_attached(dinode, kind);
}
