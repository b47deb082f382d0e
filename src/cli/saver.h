/* SPDX-License-Identifier: Apache-2.0 */
/* Saving the machine of `ospite run` to a file when somebody asks: pause, write, end; or say why not, and go on. */
#ifndef CLI_SAVER_H
#define CLI_SAVER_H

#include <pthread.h>
#include "vm/vm.h"

struct saver {
	struct vm *vm;
	const char *path;
	_Atomic int underway;
	bool started;
	pthread_t thread;
};

/* Any thread; returns at once. Does nothing while a save is underway. */
void saver_request(void *saver);
void saver_join(struct saver *s); /* before the machine is destroyed */

#endif
