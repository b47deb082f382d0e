/* SPDX-License-Identifier: Apache-2.0 */
/* The libraries of the VNC server, loaded when there is to be one. */
#ifndef DISPLAY_VNC_LIBS_H
#define DISPLAY_VNC_LIBS_H

#include "base/err.h"

/* Before any of their functions is called; again is fine. While the process still sees the host's files, and on one thread. */
int vnc_libs_load(struct err *e);

#endif
