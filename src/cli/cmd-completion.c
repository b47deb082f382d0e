/* SPDX-License-Identifier: Apache-2.0 */
/* ospite completion: what shells need to complete our command line, and the manual page's source, from the tables of commands. */
#include <string.h>
#include "cli/life.h"
#include "cli/run.h"

static const struct option_def none[] = { LIFE_END };

static const char *usage_of(const char *name)
{
	static const char *const usages[][2] = {
		{ "run", "FILE...|TEMPLATE [NAME]" }, { "create", "NAME [FILE...|TEMPLATE]" },
		{ "template", "create NAME [MACHINE|FILE...] | list | rm NAME..." },
	};

	for (unsigned i = 0; i < ARRAY_LEN(usages); i++)
		if (!strcmp(usages[i][0], name))
			return usages[i][1];
	return "";
}

/* Every command with its options, in the order of help. */
static void each_command(void (*fn)(const char *name, const char *usage, const char *help, const struct option_def *options,
				    bool machines))
{
	for (const struct command *c = commands; c->name; c++)
		fn(c->name, usage_of(c->name), c->help, !strcmp(c->name, "run") || !strcmp(c->name, "create") ? run_options : none, false);
	for (const struct life_command *c = life_commands; c->name; c++)
		fn(c->name, c->usage, c->help, c->options, c->max > 0);
}

static void print_name(const char *name, const char *usage, const char *help, const struct option_def *options, bool machines)
{
	printf("%s ", name);
}

/* ---- bash, which zsh can read too */

static void bash_case(const char *name, const char *usage, const char *help, const struct option_def *options, bool machines)
{
	printf("\t%s) words=\"", name);
	for (const struct option_def *d = options; d->name; d++)
		printf("--%s ", d->name);
	printf("--help\"");
	if (machines)
		printf("; names=1");
	puts(" ;;");
}

static void bash(void)
{
	puts("# Completion of ospite for bash; made by 'ospite completion bash'.\n"
	     "_ospite() {\n"
	     "\tlocal current=${COMP_WORDS[COMP_CWORD]} words= names=\n"
	     "\tif [ \"$COMP_CWORD\" = 1 ]; then");
	printf("\t\tCOMPREPLY=($(compgen -W \"");
	each_command(print_name);
	puts("\" -- \"$current\"))\n"
	     "\t\treturn\n"
	     "\tfi\n"
	     "\tcase ${COMP_WORDS[1]} in");
	each_command(bash_case);
	puts("\tesac\n"
	     "\tcase $current in\n"
	     "\t-*) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;;\n"
	     "\t*) if [ -n \"$names\" ]; then\n"
	     "\t\tCOMPREPLY=($(compgen -W \"$(ospite ps --all --quiet 2>/dev/null)\" -- \"$current\"))\n"
	     "\telse\n"
	     "\t\tCOMPREPLY=($(compgen -f -- \"$current\"))\n"
	     "\tfi ;;\n"
	     "\tesac\n"
	     "}\n"
	     "complete -o filenames -F _ospite ospite");
}

static void zsh(void)
{
	puts("#compdef ospite\n"
	     "# Completion of ospite for zsh; made by 'ospite completion zsh'.\n"
	     "autoload -U +X bashcompinit && bashcompinit");
	bash();
}

/* ---- fish */

static void quoted(const char *text)
{
	putchar('\'');
	for (; *text; text++)
		printf(*text == '\'' || *text == '\\' ? "\\%c" : "%c", *text);
	putchar('\'');
}

static void fish_command(const char *name, const char *usage, const char *help, const struct option_def *options, bool machines)
{
	printf("complete -c ospite -n __fish_use_subcommand -f -a %s -d ", name);
	quoted(help);
	putchar('\n');
	for (const struct option_def *d = options; d->name; d++) {
		printf("complete -c ospite -n '__fish_seen_subcommand_from %s' -l %s%s -d ", name, d->name, d->arg ? " -r" : "");
		quoted(d->help);
		putchar('\n');
	}
	if (machines)
		printf("complete -c ospite -n '__fish_seen_subcommand_from %s' -f -a '(ospite ps --all --quiet 2>/dev/null)'\n", name);
}

static void fish(void)
{
	puts("# Completion of ospite for fish; made by 'ospite completion fish'.");
	each_command(fish_command);
}

/* ---- the manual page, for scdoc */

static void scdoc_text(const char *text)
{
	for (; *text; text++) {
		if (strchr("*_\\#[]<>`~|", *text))
			putchar('\\');
		putchar(*text);
	}
}

static void man_command(const char *name, const char *usage, const char *help, const struct option_def *options, bool machines)
{
	printf("## ");
	scdoc_text(name);
	putchar(' ');
	scdoc_text(usage);
	printf("\n\n%c", help[0] & ~0x20);
	scdoc_text(help + 1);
	puts(".\n");
	if (!strcmp(name, "create")) {
		puts("The options are those of *run*.\n");
		return;
	}
	for (const struct option_def *d = options; d->name; d++) {
		printf("*--%s*%s", d->name, d->arg ? " " : "");
		scdoc_text(d->arg ? d->arg : "");
		printf("\n\t");
		scdoc_text(d->help);
		puts(".\n");
	}
}

static void man(void)
{
	puts("ospite(1)\n\n# NAME\n\nospite - run unmodified x86-64 operating systems in virtual machines\n\n"
	     "# SYNOPSIS\n\n*ospite* COMMAND [OPTION...] [NAME...]\n\n# COMMANDS\n");
	each_command(man_command);
	puts("# EXIT STATUS\n\n"
	     "Of *run*: 0 after power off, reset, leaving; what was written to the exit port; 126 when the guest crashed; 128 and the\n"
	     "number of the signal that ended it. Of all: 125 for errors of ospite itself, said in one line.\n\n"
	     "# FILES\n\n"
	     "Machines with folders are in /var/lib/ospite/machines for root, in $XDG\\_DATA\\_HOME/ospite/machines for others.\n\n"
	     "# ENVIRONMENT\n\n*OSPITE\\_ROOT*\n\tWhere machines are instead.\n\n*NO\\_COLOR*\n\tNo bold titles of tables.");
}

int cmd_completion(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} kinds[] = { { "bash", bash }, { "zsh", zsh }, { "fish", fish }, { "man", man } };

	if (options_want_help(argc, argv)) {
		puts("Usage: ospite completion bash|zsh|fish|man\n"
		     "Prints what the shell needs to complete ospite's command line, as in\n"
		     "  . <(ospite completion bash)\n"
		     "or the source of the manual page: ospite completion man | scdoc | man -l -");
		return 0;
	}
	for (unsigned i = 0; argc == 2 && i < ARRAY_LEN(kinds); i++) {
		if (!strcmp(argv[1], kinds[i].name)) {
			kinds[i].print();
			return 0;
		}
	}
	return cli_fail("usage: ospite completion bash|zsh|fish|man");
}
