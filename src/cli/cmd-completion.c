/* SPDX-License-Identifier: Apache-2.0 */
/* ospite completion: what shells need to complete our command line, and the manual page's source, from the tables of commands. */
#include <string.h>
#include "cli/complete.h"
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
		fn(c->name, usage_of(c->name), c->help, !strcmp(c->name, "run") || !strcmp(c->name, "create") ? run_options :
		   !strcmp(c->name, "engines") ? engines_options : none, false);
	for (const struct life_command *c = life_commands; c->name; c++)
		fn(c->name, c->usage, c->help, c->options, c->max > 0);
}

/* ---- shells: each asks us, with the words so far, for what the last of them may become (complete.c) */

static void bash(void)
{
	puts("# Completion of ospite for bash; made by 'ospite completion bash'.\n"
	     "_ospite() {\n"
	     "\tlocal word help current=${COMP_WORDS[COMP_CWORD]}\n"
	     "\tCOMPREPLY=()\n"
	     "\t[[ $current == [=:] ]] && current=\n"
	     "\twhile IFS=$'\\t' read -r word help; do\n"
	     "\t\tcase $word in\n"
	     "\t\t@files) compopt -o filenames; mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"$current\") ;;\n"
	     "\t\t@folders) compopt -o filenames; mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- \"$current\") ;;\n"
	     "\t\t*) COMPREPLY+=(\"$word\") ;;\n"
	     "\t\tesac\n"
	     "\tdone < <(ospite completion words --split -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
	     "\tcase ${COMPREPLY[0]} in *[=:]) compopt -o nospace ;; esac\n"
	     "}\n"
	     "complete -F _ospite ospite");
}

static void zsh(void)
{
	puts("#compdef ospite\n"
	     "# Completion of ospite for zsh; made by 'ospite completion zsh'.\n"
	     "_ospite() {\n"
	     "\tlocal -a lines plain open\n"
	     "\tlocal line text\n"
	     "\tlines=(\"${(@f)$(ospite completion words -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
	     "\tfor line in $lines; do\n"
	     "\t\ttext=${${line%%$'\\t'*}//:/\\\\:}\n"
	     "\t\tcase $line in\n"
	     "\t\t@files) [[ -prefix *= ]] && compset -P '*='; _files ;;\n"
	     "\t\t@folders) [[ -prefix *= ]] && compset -P '*='; _files -/ ;;\n"
	     "\t\t'') ;;\n"
	     "\t\t*[=:]|*[=:]$'\\t'*) open+=(\"$text:${line#*$'\\t'}\") ;;\n"
	     "\t\t*$'\\t'*) plain+=(\"$text:${line#*$'\\t'}\") ;;\n"
	     "\t\t*) plain+=(\"$text\") ;;\n"
	     "\t\tesac\n"
	     "\tdone\n"
	     "\t(( $#plain )) && _describe ospite plain\n"
	     "\t(( $#open )) && _describe ospite open -S ''\n"
	     "}\n"
	     "if [ \"$funcstack[1]\" = _ospite ]; then _ospite \"$@\"; else compdef _ospite ospite; fi");
}

static void fish(void)
{
	puts("# Completion of ospite for fish; made by 'ospite completion fish'.\n"
	     "function __ospite_complete\n"
	     "\tset -l words (commandline -opc)\n"
	     "\tset -e words[1]\n"
	     "\tset -l current (commandline -ct)\n"
	     "\tfor line in (ospite completion words -- $words \"$current\" 2>/dev/null)\n"
	     "\t\tswitch $line\n"
	     "\t\t\tcase @files\n"
	     "\t\t\t\t__fish_complete_path \"$current\"\n"
	     "\t\t\tcase @folders\n"
	     "\t\t\t\t__fish_complete_directories \"$current\"\n"
	     "\t\t\tcase '*'\n"
	     "\t\t\t\techo $line\n"
	     "\t\tend\n"
	     "\tend\n"
	     "end\n"
	     "complete -c ospite -f -a '(__ospite_complete)'");
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
	/* what is escaped in a title stays so: troff would take "\[NAME\]" for a character's name */
	printf("## %s %s\n\n%c", name, usage, help[0] & ~0x20);
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

static void man_verbs(const char *command, bool (*verb)(unsigned i, struct verb_help *v))
{
	struct verb_help v;
	char name[64];

	for (unsigned i = 0; verb(i, &v); i++) {
		snprintf(name, sizeof(name), "%s %s", command, v.name);
		man_command(name, v.args, v.help, v.options == run_options ? none : v.options, false);
	}
}

static void man(void)
{
	puts("ospite(1)\n\n# NAME\n\nospite - run unmodified x86-64 operating systems in virtual machines\n\n"
	     "# SYNOPSIS\n\n*ospite* COMMAND [OPTION...] [NAME...]\n\n# COMMANDS\n");
	each_command(man_command);
	puts("# VERBS\n");
	man_verbs("image", image_verb);
	man_verbs("net", net_verb);
	man_verbs("template", template_verb);
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

	if (argc > 1 && !strcmp(argv[1], "words"))
		return complete_words(argc - 2, argv + 2);
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
