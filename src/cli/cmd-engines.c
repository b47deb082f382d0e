/* SPDX-License-Identifier: Apache-2.0 */
/* ospite engines: what can execute guests on this host, how fast, and why not. */
#include <string.h>
#include "cli/cli.h"
#include "vm/measure.h"

static void show(const struct engine_ops *ops)
{
	struct err e = { 0 };
	double mips = 0;

	if (ops->probe(&e) || measure_engine(ops, &mips, &e)) {
		printf("%-8s does not work here: %s\n", ops->name, e.text);
		return;
	}
	printf("%-8s works, %.3g million instructions a second%s\n", ops->name, mips,
	       !strcmp(ops->name, "kvm") && mips < MEASURE_ACCELERATED ? "; not accelerated by hardware, so auto leaves it alone" :
									"");
}

int cmd_engines(int argc, char **argv)
{
	const struct engine_ops *const *list = engine_list();

	if (options_want_help(argc, argv)) {
		puts("Usage: ospite engines\n"
		     "Lists the engines in the order --engine auto prefers them, whether each works on\n"
		     "this host, and its measured speed in a simple loop. All give the guest the same\n"
		     "machine. /dev/kvm can exist without hardware behind it: auto measures.");
		return 0;
	}
	if (argc > 1)
		return cli_fail("engines takes no '%.60s'; see 'ospite engines --help'", argv[1]);
	for (; *list; list++)
		show(*list);
	return 0;
}
