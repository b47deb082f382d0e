/* SPDX-License-Identifier: Apache-2.0 */
/*
 * neatvnc, gnutls and what they need are 14 shared libraries: to link them takes 1.8 ms of every command and 0.4 MiB of every
 * machine, of which few have a VNC server. So the program is not linked to them. For each function of theirs that we call there is one
 * of the same name here that jumps through a slot; vnc_libs_load() loads the libraries and fills the slots. Where it
 * has not been called a slot leads to a check that fails.
 *
 * The slots are the only state of this program that is no struct's: they are written once, by the one thread there is then.
 */
#include <dlfcn.h>
#include <errno.h>
#include "base/base.h"
#include "display/vnc-libs.h"
#include "vnc-sonames.h" /* in the build folder */

enum { NEATVNC, AML, PIXMAN, GNUTLS, XKBCOMMON, LIBRARIES };

static void not_loaded(void)
{
	CHECK(!"the libraries of VNC are loaded");
}

#define FUNCTION(library, name)                                                                    \
	__attribute__((visibility("hidden"), used)) void *vnc_slot_##name = (void *)not_loaded; \
	asm(".pushsection .text\n.globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n\tjmp *vnc_slot_" #name "(%rip)\n" \
	    ".size " #name ", . - " #name "\n.popsection");
#include "display/vnc-libs.def"
#undef FUNCTION

static const struct {
	const char *name;
	void **slot;
	unsigned library;
} functions[] = {
#define FUNCTION(library, name) { #name, &vnc_slot_##name, library },
#include "display/vnc-libs.def"
#undef FUNCTION
};

int vnc_libs_load(struct err *e)
{
	static const char *const files[LIBRARIES] = { VNC_LIBS };
	void *library[LIBRARIES], *found[ARRAY_LEN(functions)];

	if (*functions[0].slot != (void *)not_loaded)
		return 0;
	for (unsigned n = 0; n < LIBRARIES; n++) {
		library[n] = dlopen(files[n], RTLD_NOW | RTLD_LOCAL);
		if (!library[n])
			return err_set(e, ENOENT, "VNC takes %s, which cannot be loaded: %s", files[n], dlerror());
	}
	for (unsigned n = 0; n < ARRAY_LEN(functions); n++) {
		found[n] = dlsym(library[functions[n].library], functions[n].name);
		if (!found[n])
			return err_set(e, ENOTSUP, "this %s has no %s: another version than ospite was built for", files[functions[n].library],
				       functions[n].name);
	}
	for (unsigned n = 0; n < ARRAY_LEN(functions); n++)
		*functions[n].slot = found[n];
	return 0;
}
