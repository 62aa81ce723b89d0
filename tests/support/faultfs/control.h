/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: one order a packet, one answer a packet ("ok ..." or "error TEXT").
 *
 *   fail CALL ERRNO NTH TIMES PATTERN    delay CALL MS NTH TIMES PATTERN
 *   lose CALL ERRNO NTH TIMES PATTERN    the call is made, and answered as if it had failed (calls that change names)
 *   hold CALL NTH PATTERN                then, unasked, "held" when a call waits, or "gone" if the rule was cleared
 *   release                              this connection's rules end, its held calls go on
 *   cancel                               its rules that hold nothing end; "ok held" if one holds a call, else "ok"
 *   waiting                              "ok N": calls that are held or delayed now
 *   clear                                everybody's rules end
 *   counts FIRST                         "ok NEXT\0CALL PATH\0N\0...": the rest with "counts NEXT"; NEXT 0: no more
 *   reset                                the counts start anew
 *   clock AT_NS BACK_NS                  stamp NOW_CTIME_NS CTIME_NS MTIME_NS PATH
 *
 * Flow: control_open() when the mirror is mounted: who can connect knows that it answers.
 * Shapes: fields are separated by one space; the last one goes to the packet's end, spaces and all.
 * Ownership: rules belong to their connection and end with it.
 * Threads: one thread of its own serves all connections; no order waits.
 * Errors: negative errno with a text.
 */
#ifndef MAILDEX_TESTS_FAULTFS_CONTROL_H
#define MAILDEX_TESTS_FAULTFS_CONTROL_H

#include "lib/base/err.h"

/* top: the real tree's directory. Returns 0 or negative errno. */
int control_open(const char *path, int top, struct err *e);

#endif
