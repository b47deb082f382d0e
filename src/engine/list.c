/* SPDX-License-Identifier: Apache-2.0 */
/* The engines there are. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include "base/err.h"
#include "engine/engine.h"
#include "engine/kvm/engine.h"

const struct engine_ops *const *engine_list(void)
{
	static const struct engine_ops *const engines[] = { &engine_kvm, &engine_dbt,
							    &engine_interp, &engine_verify, NULL };

	return engines;
}

const struct engine_ops *engine_find(const char *name)
{
	for (const struct engine_ops *const *e = engine_list(); *e; e++) {
		if (!strcmp((*e)->name, name))
			return *e;
	}
	return NULL;
}

static int parse_option(const char *text, size_t len, struct engine_options *o, struct err *e)
{
	static const struct {
		const char *text;
		size_t member;
		enum engine_choice choice;
	} known[] = {
		{ "irqchip=split", offsetof(struct engine_options, lapic), ENGINE_ON },
		{ "irqchip=user", offsetof(struct engine_options, lapic), ENGINE_OFF },
		{ "doorbells=on", offsetof(struct engine_options, doorbells), ENGINE_ON },
		{ "doorbells=off", offsetof(struct engine_options, doorbells), ENGINE_OFF },
		{ "irqfds=on", offsetof(struct engine_options, irqfds), ENGINE_ON },
		{ "irqfds=off", offsetof(struct engine_options, irqfds), ENGINE_OFF },
		{ "dirty=ring", offsetof(struct engine_options, dirty_ring), ENGINE_ON },
		{ "dirty=log", offsetof(struct engine_options, dirty_ring), ENGINE_OFF },
	};

	for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
		if (strlen(known[i].text) != len || memcmp(known[i].text, text, len))
			continue;
		memcpy((char *)o + known[i].member, &known[i].choice, sizeof(known[i].choice));
		return 0;
	}
	return err_set(e, EINVAL, "engine kvm has no option '%.*s'; there are irqchip=split|user, irqfds=on|off, doorbells=on|off and "
				  "dirty=ring|log", (int)MIN(len, 60u), text);
}

int engine_parse(const char *spec, const struct engine_ops **ops, struct engine_options *options, struct err *e)
{
	size_t len = strcspn(spec, ",");
	int r = 0;

	*options = (struct engine_options){ 0 };
	*ops = NULL;
	for (const struct engine_ops *const *l = engine_list(); *l; l++)
		if (strlen((*l)->name) == len && !memcmp((*l)->name, spec, len))
			*ops = *l;
	if (!*ops && strcmp(spec, "auto"))
		return err_set(e, EINVAL, "there is no engine \"%.*s\"; 'ospite engines' lists them", (int)MIN(len, 60u), spec);
	if (spec[len] && *ops != &engine_kvm)
		return err_set(e, EINVAL, "engine %.*s has no options", (int)MIN(len, 60u), spec);
	while (!r && spec[len]) {
		const char *option = spec + len + 1;
		size_t n = strcspn(option, ",");

		r = parse_option(option, n, options, e);
		len += n + 1;
	}
	return r;
}
