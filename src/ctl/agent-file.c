/* SPDX-License-Identifier: Apache-2.0 */
/* What can be done by the guest agent: files and programs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "ctl/agent.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *agent_encode(const void *data, size_t n)
{
	const uint8_t *in = data;
	char *text = malloc((n + 2) / 3 * 4 + 1), *out = text;

	for (size_t i = 0; text && i < n; i += 3) {
		unsigned left = (unsigned)MIN(n - i, (size_t)3);
		uint32_t v = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);

		*out++ = letters[v >> 18];
		*out++ = letters[v >> 12 & 63];
		*out++ = left > 1 ? letters[v >> 6 & 63] : '=';
		*out++ = left > 2 ? letters[v & 63] : '=';
	}
	if (text)
		*out = 0;
	return text;
}

ssize_t agent_decode(const char *text, size_t len, void *data)
{
	uint8_t *out = data;

	if (len % 4)
		return -1;
	for (size_t i = 0; i < len; i += 4) {
		unsigned pad = i + 4 < len ? 0 : (text[i + 3] == '=') + (text[i + 3] == '=' && text[i + 2] == '=');
		uint32_t v = 0;

		for (unsigned k = 0; k < 4 - pad; k++) {
			const char *at = text[i + k] ? memchr(letters, text[i + k], 64) : NULL;

			if (!at)
				return -1;
			v |= (uint32_t)(at - letters) << (18 - 6 * k);
		}
		for (unsigned k = 0; k < 3 - pad; k++)
			*out++ = (uint8_t)(v >> (16 - 8 * k));
	}
	return out - (uint8_t *)data;
}

/* ---- files */

int agent_open(struct agent *a, const char *path, const char *mode, int64_t *handle, struct err *e)
{
	json_t *result;
	int r = agent_call(a, "guest-file-open", json_pack("{s:s,s:s}", "path", path, "mode", mode), &result, e);

	if (r)
		return r;
	*handle = json_integer_value(result);
	r = json_is_integer(result) ? 0 : err_set(e, EPROTO, "the guest agent's answer makes no sense");
	json_decref(result);
	return r;
}

int agent_close(struct agent *a, int64_t handle, struct err *e)
{
	return agent_call(a, "guest-file-close", json_pack("{s:I}", "handle", (json_int_t)handle), NULL, e);
}

int agent_write(struct agent *a, int64_t handle, const void *data, size_t n, struct err *e)
{
	const uint8_t *at = data;
	int r = 0;

	while (n && !r) {
		char *text = agent_encode(at, MIN(n, (size_t)AGENT_CHUNK));
		json_t *result;
		json_int_t count;

		if (!text)
			return err_set(e, ENOMEM, "no memory");
		r = agent_call(a, "guest-file-write", json_pack("{s:I,s:s}", "handle", (json_int_t)handle, "buf-b64", text), &result, e);
		free(text);
		if (r)
			return r;
		count = json_integer_value(json_object_get(result, "count"));
		json_decref(result);
		if (count <= 0 || (size_t)count > MIN(n, (size_t)AGENT_CHUNK))
			return err_set(e, EIO, "the guest took %lld of %zu bytes", (long long)count, n);
		at += count;
		n -= (size_t)count;
	}
	return 0;
}

ssize_t agent_read(struct agent *a, int64_t handle, void *data, struct err *e)
{
	json_t *result;
	const char *text;
	size_t len;
	ssize_t n;
	int r = agent_call(a, "guest-file-read", json_pack("{s:I,s:I}", "handle", (json_int_t)handle, "count", (json_int_t)AGENT_CHUNK),
			   &result, e);

	if (r)
		return r;
	text = json_string_value(json_object_get(result, "buf-b64"));
	len = text ? strlen(text) : 1;
	n = text && len <= (AGENT_CHUNK + 2) / 3 * 4 ? agent_decode(text, len, data) : -1;
	json_decref(result);
	return n < 0 || n > AGENT_CHUNK ? err_set(e, EPROTO, "the guest agent's answer makes no sense") : n;
}

/* ---- programs */

int agent_exec(struct agent *a, const char *const *argv, bool capture, int64_t *pid, struct err *e)
{
	json_t *args = json_array(), *result;
	int r;

	for (unsigned i = 1; argv[i]; i++)
		if (json_array_append_new(args, json_string(argv[i]))) {
			json_decref(args);
			return err_set(e, EINVAL, "'%.60s' is not UTF-8", argv[i]);
		}
	r = agent_call(a, "guest-exec", json_pack("{s:s,s:o,s:b}", "path", argv[0], "arg", args, "capture-output", capture), &result, e);
	if (r)
		return r;
	*pid = json_integer_value(json_object_get(result, "pid"));
	r = json_is_integer(json_object_get(result, "pid")) ? 0 : err_set(e, EPROTO, "the guest agent's answer makes no sense");
	json_decref(result);
	return r;
}

static int take_output(json_t *result, const char *key, char **out, size_t *len, struct err *e)
{
	const char *text = json_string_value(json_object_get(result, key));
	ssize_t n;

	if (!text)
		return 0;
	*out = malloc(strlen(text) + 1);
	if (!*out)
		return err_set(e, ENOMEM, "no memory");
	n = agent_decode(text, strlen(text), *out);
	*len = n < 0 ? 0 : (size_t)n;
	return n < 0 ? err_set(e, EPROTO, "the guest agent's answer makes no sense") : 0;
}

int agent_status(struct agent *a, int64_t pid, struct agent_status *st, struct err *e)
{
	json_t *result, *sign;
	int r = agent_call(a, "guest-exec-status", json_pack("{s:I}", "pid", (json_int_t)pid), &result, e);

	*st = (struct agent_status){ 0 };
	if (r)
		return r;
	st->exited = json_is_true(json_object_get(result, "exited"));
	sign = json_object_get(result, "signal");
	st->status = (int)json_integer_value(json_object_get(result, "exitcode")) & 255;
	if (json_is_integer(sign))
		st->status = 128 + ((int)json_integer_value(sign) & 127);
	r = take_output(result, "out-data", &st->out, &st->out_len, e);
	if (!r)
		r = take_output(result, "err-data", &st->err, &st->err_len, e);
	if (r) {
		free(st->out);
		free(st->err);
		st->out = st->err = NULL;
	}
	json_decref(result);
	return r;
}

int agent_run(struct agent *a, const char *const *argv, int ms, int *status, struct err *e)
{
	struct timespec nap = { .tv_nsec = 2000000 };
	struct agent_status st = { 0 };
	int64_t pid, spent = 0;
	int r = agent_exec(a, argv, false, &pid, e);

	while (!r && !st.exited) {
		r = agent_status(a, pid, &st, e);
		if (r || st.exited)
			break;
		if (spent > ms)
			return err_set(e, ETIMEDOUT, "'%.60s' in the guest does not end", argv[0]);
		agent_rest(a);
		nanosleep(&nap, NULL);
		spent += nap.tv_nsec / 1000000;
		nap.tv_nsec = MIN(nap.tv_nsec * 2, 50000000l);
	}
	*status = st.status;
	return r;
}
