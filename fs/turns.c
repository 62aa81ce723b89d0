/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/turns.h"

#include <errno.h>
#include <stdlib.h>

void turns_init(struct turns *t, struct node_table *nodes)
{
	*t = (struct turns){.nodes = nodes};
}

static void append(struct turns_list *l, struct turn *turn)
{
	turn->next = NULL;
	*(l->first ? &l->last->next : &l->first) = turn;
	l->last = turn;
}

static struct turn *pop(struct turns_list *l)
{
	struct turn *turn = l->first;

	if (turn)
		l->first = turn->next;
	return turn;
}

static void turn_free(struct turns *t, struct turn *turn)
{
	turn->node->dir->turn = NULL;
	node_unref(t->nodes, turn->node);
	t->count--;
	free(turn);
}

int turns_ask(struct turns *t, struct node *half)
{
	struct turn *turn = half->dir->turn;

	if (turn) {
		turn->again = true;
		return 0;
	}
	if (t->count >= TURNS_MAX)
		return -ENOSPC;
	turn = calloc(1, sizeof(*turn));
	if (!turn)
		return -ENOMEM;
	node_ref(t->nodes, half);
	turn->node = half;
	half->dir->turn = turn;
	t->count++;
	append(&t->due, turn);
	return 1;
}

struct turn *turns_next(struct turns *t, int64_t now_ns, int64_t *until_ns)
{
	struct turn *turn;

	/* All are quiet for the same time, so the list of those is in the order in which they end. */
	while (t->quiet.first && t->quiet.first->quiet_until_ns <= now_ns) {
		turn = pop(&t->quiet);
		if (turn->again)
			append(&t->due, turn);
		else
			turn_free(t, turn);
	}
	turn = pop(&t->due);
	if (turn) /* what comes while it rings may be too late for the server's look */
		turn->again = false;
	*until_ns = t->quiet.first ? t->quiet.first->quiet_until_ns : INT64_MAX;
	return turn;
}

void turns_done(struct turns *t, struct turn *turn, int64_t now_ns)
{
	turn->quiet_until_ns = now_ns + TURNS_QUIET_NS;
	append(&t->quiet, turn);
}

void turns_release(struct turns *t)
{
	struct turn *turn;

	while ((turn = pop(&t->due)) || (turn = pop(&t->quiet)))
		turn_free(t, turn);
}
