/* SPDX-License-Identifier: Apache-2.0 */
/* ospite engines: what can execute guests on this host. */
#include "cli/cli.h"
#include "engine/engine.h"

int cmd_engines(int argc, char **argv)
{
	const struct engine_ops *const *list = engine_list();

	if (options_want_help(argc, argv)) {
		puts("Usage: ospite engines\n"
		     "Lists the engines in the order --engine auto prefers them, and whether each\n"
		     "works on this host. All give the guest the same machine at different speeds.");
		return 0;
	}
	if (argc > 1)
		return cli_fail("engines takes no '%.60s'; see 'ospite engines --help'", argv[1]);
	for (; *list; list++) {
		struct err e = { 0 };

		if (!(*list)->probe || !(*list)->probe(&e))
			printf("%-8s works\n", (*list)->name);
		else
			printf("%-8s does not work here: %s\n", (*list)->name, e.text);
	}
	return 0;
}
