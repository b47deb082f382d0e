/* SPDX-License-Identifier: Apache-2.0 */
/* Broken invariants and scope clean-up. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/base.h"

void check_failed(const char *expr, const char *file, int line)
{
	fprintf(stderr, "ospite: internal error: %s does not hold at %s:%d\n", expr, file, line);
	abort();
}

void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1; /* its number is another file's soon */
}

void cleanup_free(void *ptr)
{
	free(*(void **)ptr);
}
