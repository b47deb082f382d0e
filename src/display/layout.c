/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VNC clients say what a key has typed, the guest wants to know which key it was: a table of one layout, turned round. Shift and AltGr are
 * keys of their own and come as such, so the symbol of any level leads to its key; the lowest level wins where several keys have it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xkbcommon/xkbcommon.h>
#include "base/err.h"
#include "display/keys.h"
#include "display/layout.h"
#include "display/vnc-libs.h"

#define SYMBOLS 1024 /* of one layout; usual ones have 300 to 500 */
#define LEVELS 4     /* plain, Shift, AltGr, both */
#define X_OFFSET 8   /* X counts keys from there */

struct key_layout {
	unsigned count;
	struct {
		uint32_t symbol;
		uint16_t code;
	} key[SYMBOLS];
};

unsigned key_layout_find(const struct key_layout *l, uint32_t symbol)
{
	for (unsigned i = 0; i < l->count; i++)
		if (l->key[i].symbol == symbol)
			return l->key[i].code;
	return 0;
}

static void add_level(struct key_layout *l, struct xkb_keymap *map, unsigned level)
{
	for (xkb_keycode_t k = xkb_keymap_min_keycode(map); k <= xkb_keymap_max_keycode(map); k++) {
		const xkb_keysym_t *symbols;

		if (k < X_OFFSET || !key_exists(k - X_OFFSET) || level >= xkb_keymap_num_levels_for_key(map, k, 0))
			continue;
		if (xkb_keymap_key_get_syms_by_level(map, k, 0, level, &symbols) != 1 || key_layout_find(l, symbols[0]))
			continue;
		if (l->count < SYMBOLS) {
			l->key[l->count].symbol = symbols[0];
			l->key[l->count++].code = (uint16_t)(k - X_OFFSET);
		}
	}
}

static int fill(struct key_layout *l, const char *name, struct err *e)
{
	char layout[64], variant[64] = "";
	struct xkb_rule_names names = { .rules = "evdev", .model = "pc105", .layout = layout, .variant = variant };
	struct xkb_context *x;
	struct xkb_keymap *map;

	if (vnc_libs_load(e))
		return -1;
	x = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
	if (!x)
		return err_set(e, ENOENT, "keyboard layouts cannot be read; install xkb-data");
	xkb_context_set_log_level(x, XKB_LOG_LEVEL_CRITICAL);
	layout[0] = 0;
	map = sscanf(name, "%63[a-z]:%63[A-Za-z0-9_-]", layout, variant) < 1 || strlen(layout) + strlen(variant) + !!variant[0] != strlen(name) ?
		      NULL : xkb_keymap_new_from_names(x, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
	for (unsigned level = 0; map && level < LEVELS; level++)
		add_level(l, map, level);
	if (map)
		xkb_keymap_unref(map);
	xkb_context_unref(x);
	return map ? 0 : err_set(e, EINVAL, "'%.60s' is no keyboard layout; give one as X names it, such as us, gb, de, fr, it or ch:fr", name);
}

struct key_layout *key_layout_open(const char *name, struct err *e)
{
	struct key_layout *l = calloc(1, sizeof(*l));

	if (!l) {
		err_set(e, ENOMEM, "no memory for a keyboard layout");
		return NULL;
	}
	if (fill(l, name, e)) {
		free(l);
		return NULL;
	}
	return l;
}

void key_layout_close(struct key_layout *l)
{
	free(l);
}
