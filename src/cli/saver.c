/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The save runs on a thread of its own: pausing waits for the vCPUs, and neither they nor the event loop, from which the
 * request comes, may wait for themselves.
 */
#include <stdio.h>
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/saver.h"
#include "vm/save.h"

static void *saver_thread(void *opaque)
{
	struct saver *s = opaque;
	struct err e = { 0 };
	struct progress bar;
	int r = vm_pause(s->vm, &e);

	if (!r) {
		progress_start(&bar, "saving", 0, false);
		r = vm_save_telling(s->vm, s->path, &(struct save_progress){ progress_of, &bar }, &e);
		progress_end(&bar);
		if (!r) {
			fprintf(stderr, "ospite: saved to %s; go on with: ospite run --restore %s\r\n", s->path, s->path);
			vm_request_end(s->vm, VM_END_USER, 0, "saved");
			return NULL;
		}
		vm_resume(s->vm, NULL);
	}
	cli_fail("--save-to %s: %s; the machine goes on", s->path, e.text);
	atomic_store(&s->underway, 0);
	return NULL;
}

void saver_request(void *opaque)
{
	struct saver *s = opaque;

	if (!s->path || !s->vm || atomic_exchange(&s->underway, 1))
		return;
	if (s->started)
		pthread_join(s->thread, NULL);
	s->started = !pthread_create(&s->thread, NULL, saver_thread, s);
	if (!s->started)
		atomic_store(&s->underway, 0);
}

void saver_join(struct saver *s)
{
	if (s->started)
		pthread_join(s->thread, NULL);
	s->started = false;
}
