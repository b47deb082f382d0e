/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files for a machine that runs: its process sees none but its own, so the command opens them, with the rights of who gives it, and hands them
 * over. One that cannot be opened here is left to the process, which says why it cannot.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "backend/block.h"
#include "cli/life.h"
#include "cli/run.h"

static int bring(void *peer, const char *path, bool write, struct err *e)
{
	const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd _close_ = open(path, flags | (write ? O_RDWR : O_RDONLY));

	if (fd < 0)
		return 0;
	fcntl(fd, F_SETFL, 0); /* O_NONBLOCK was for FIFOs in the way */
	return ctl_bring(peer, path, fd, ANSWER_MS, e);
}

int life_bring_file(struct ctl_peer *p, const char *path, struct err *e)
{
	return bring(p, path, false, e);
}

int life_bring_disk(struct ctl_peer *p, const char *text, struct err *e)
{
	char *spec _free_ = strdup(text);
	struct pc_disk d = { .spec = NULL };
	int r = spec ? pc_disk_parse(&d, spec, e) : err_set(e, ENOMEM, "out of memory");

	return r || !d.spec ? r : block_spec_files(d.spec, d.cdrom, bring, p, e);
}
