/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client sends to the control socket: framing and requests, on a machine that was never started. The first byte
 * says how long the pieces are in which it arrives. Commands that would write files see their arguments checked only.
 */
#include <stdlib.h>
#include <string.h>
#include "base/evloop.h"
#include "ctl/private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static int none(struct err *e)
{
	return 0;
}
static int attach(struct machine *m, struct err *e)
{
	return 0;
}
static void detach(struct machine *m)
{
}

static const struct engine_ops idle = { .name = "idle", .probe = none, .vm_attach = attach, .vm_detach = detach };
static const struct vm_config config = { .name = "f", .cpus = 3, .memory = 1 << 20, .cpu_model = "v2",
					 .engine_ops = &idle };
static struct ctl ctl;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (vm_create(&ctl.config.vm, &config, NULL))
		abort();
	ctl.config.version = "1.2.3";
	pthread_mutex_init(&ctl.lock, NULL);
	ctl.loop = evloop_create(NULL);
	ctl.count = 1; /* so that events are not posted to the loop, which does not run */
	ctl.events[0].name = "STOP";
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ctl_session session = { .ctl = &ctl };
	struct ctl_frame frame = { 0 };
	size_t piece = size ? data[0] + 1u : 1, at = 1;
	enum ctl_frame_result r = FRAME_MORE;

	while (at < size && r != FRAME_TOO_LONG) {
		size_t n = MIN(piece, size - at), len = 0;
		char *bytes = malloc(n); /* of its own, so that a read beyond it is noticed */
		const char *text = NULL;

		memcpy(bytes, data + at, n);
		CHECK(!ctl_frame_add(&frame, bytes, n));
		free(bytes);
		at += n;
		while ((r = ctl_frame_next(&frame, &text, &len)) == FRAME_VALUE || r == FRAME_NONSENSE) {
			json_t *reply;

			if (r == FRAME_NONSENSE)
				continue;
			CHECK(len >= 2 && len <= size);
			reply = ctl_session_handle(&session, text, len);
			CHECK(json_is_object(reply) && (json_object_get(reply, "return") || json_object_get(reply, "error")));
			json_decref(reply);
		}
	}
	ctl_frame_dispose(&frame);
	return 0;
}
