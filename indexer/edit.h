/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What waits for one half, applied to its row and names (rules 2, 4, 5 and 8).
 *
 * The races guarded against:
 * - An event may tell of what is long past. Unless its window starts after all that the row holds, the disk is asked,
 *   after a forced GETATTR of the directory: else a dentry cached by the NFS client answers. One GETATTR a half and
 *   batch suffices, as it comes after everything in the batch happened.
 * - The lower tree may be away while events arrive: then nothing is looked up, and the half needs a listing.
 * - A batch may be rolled back and applied once more: nothing here is kept outside of the row, but inodes found.
 */
#ifndef MAILDEX_INDEXER_EDIT_H
#define MAILDEX_INDEXER_EDIT_H

#include "indexer/batch.h"
#include "indexer/queue.h"

/* Returns 0 or the store's negative errno (the transaction is to be rolled back). */
int edit_half(struct batch *b, struct queue_half *h, struct err *e);

#endif
