/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What node.c, node_dir.c and node_open.c share, all called with the table's lock.
 */
#ifndef MAILDEX_FS_NODE_PRIVATE_H
#define MAILDEX_FS_NODE_PRIVATE_H

#include "fs/node.h"

/* Frees the node if nobody holds it. */
void node_put(struct node_table *t, struct node *n);
/* Keeps a descriptor for a directory (takes it over), and closes those least used if there are too many. */
void node_dirfd_keep(struct node_table *t, struct node *n, int fd);
void node_early_drop(struct node_table *t, const struct node *n);
void node_dirfd_drop(struct node_table *t, struct node *n);

#endif
