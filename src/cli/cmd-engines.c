/* SPDX-License-Identifier: Apache-2.0 */
/* ospite engines: what can execute guests on this host, how fast, and why not. */
#include <errno.h>
#include <string.h>
#include "cli/life.h"
#include "vm/measure.h"

const struct option_def engines_options[] = { LIFE_JSON, LIFE_END };

static void look(const struct engine_ops *ops, bool json, json_t *rows)
{
	struct err e = { 0 };
	double mips = 0;
	bool works = !ops->probe(&e) && !measure_engine(ops, &mips, &e);
	bool slow = works && !strcmp(ops->name, "kvm") && mips < MEASURE_ACCELERATED;

	if (json)
		json_array_append_new(rows, works ? json_pack("{s:s,s:b,s:f,s:b}", "engine", ops->name, "works", 1, "mips", mips, "auto", !slow) :
						    json_pack("{s:s,s:b,s:s}", "engine", ops->name, "works", 0, "reason", e.text));
	else if (!works)
		printf("%-8s does not work here: %s\n", ops->name, e.text);
	else
		printf(mips < 100 ? "%-8s works, %.3g million instructions a second%s\n" : "%-8s works, %.0f million instructions a second%s\n", ops->name, mips,
		       slow ? "; not accelerated by hardware, so auto leaves it alone" : "");
}

static int take_word(void *into, const char *word, struct err *e)
{
	return err_set(e, EINVAL, "engines takes no '%.60s'; see 'ospite engines --help'", word);
}

int cmd_engines(int argc, char **argv)
{
	const struct engine_ops *const *list = engine_list();
	struct life_args a = { 0 };
	json_t *rows = json_array();
	struct err e = { 0 };

	if (options_want_help(argc, argv)) {
		puts("Usage: ospite engines [OPTION...]\n"
		     "Lists the engines in the order --engine auto prefers them, whether each works on\n"
		     "this host, and its measured speed in a simple loop. All give the guest the same\n"
		     "machine. /dev/kvm can exist without hardware behind it: auto measures.\n");
		options_print(stdout, engines_options);
		return 0;
	}
	if (options_parse_words(engines_options, &a, argc, argv, take_word, &e))
		return cli_fail("%s", e.text);
	for (; *list; list++)
		look(*list, a.json, rows);
	if (a.json)
		print_json(rows);
	json_decref(rows);
	return 0;
}
