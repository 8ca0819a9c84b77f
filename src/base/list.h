/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intrusive doubly linked list. The list owns nothing. The struct that embeds a node says which
 * lock guards it; callers hold that lock. Any thread; nothing fails.
 */
#ifndef FDIO_BASE_LIST_H
#define FDIO_BASE_LIST_H

#include "base/util.h"

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(l) { &(l), &(l) }

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }

static inline void list_insert_between(struct list *n, struct list *prev, struct list *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}

static inline void list_add(struct list *head, struct list *n)
{
	list_insert_between(n, head, head->next);
}
static inline void list_add_tail(struct list *head, struct list *n)
{
	list_insert_between(n, head->prev, head);
}

/* Unlinks n and initialises it, so that unlinking it again does no harm. */
static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

static inline void list_move_tail(struct list *head, struct list *n)
{
	list_del(n);
	list_add_tail(head, n);
}

/* Moves all nodes of from to the end of to. */
static inline void list_splice_tail(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_first(head, type, member) list_entry((head)->next, type, member)
#define list_last(head, type, member) list_entry((head)->prev, type, member)
/*
 * The node of an entry, by arithmetic alone: at the end of a loop pos would be the entry around the
 * head, which is none and need not be aligned as entries are.
 */
#define list_node(pos, member) \
	((struct list *)(void *)((char *)(pos) + offsetof(__typeof__(*(pos)), member)))
#define list_for_each(pos, head, member)                                                    \
	for (pos = list_entry((head)->next, __typeof__(*pos), member);                         \
	     list_node(pos, member) != (head);                                                 \
	     pos = list_entry(pos->member.next, __typeof__(*pos), member))
#define list_for_each_safe(pos, tmp, head, member)                                 \
	for (pos = list_entry((head)->next, __typeof__(*pos), member),                \
	    tmp = list_entry(list_node(pos, member)->next, __typeof__(*pos), member); \
	     list_node(pos, member) != (head);                                        \
	     pos = tmp, tmp = list_entry(list_node(tmp, member)->next, __typeof__(*tmp), member))

#endif
