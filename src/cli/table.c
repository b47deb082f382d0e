/* SPDX-License-Identifier: Apache-2.0 */
/* The same rows as a table for people or as JSON for programs. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/life.h"

void print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(1) | JSON_ENCODE_ANY);
	putchar('\n');
}

static bool is_command(const unsigned char *p)
{
	return *p < ' ' || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0);
}

void text_clean(char *text)
{
	unsigned char *out = (unsigned char *)text;

	for (const unsigned char *p = out; *p; p++) {
		bool command = is_command(p);

		p += command && *p == 0xc2;
		*out++ = command ? '?' : *p;
	}
	*out = 0;
}

void text_print(const char *text, bool lines)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		bool command = is_command(p) && !(lines && (*p == '\n' || *p == '\t'));

		putchar(command ? '?' : *p);
		if (command && *p == 0xc2)
			p++;
	}
}

/* As text, without what a terminal could take for a command. */
static const char *cell(json_t *row, const char *key, char text[128])
{
	json_t *v = json_object_get(row, key);

	if (json_is_string(v))
		snprintf(text, 128, "%s", json_string_value(v));
	else if (json_is_integer(v))
		snprintf(text, 128, "%lld", (long long)json_integer_value(v));
	else if (json_is_real(v))
		snprintf(text, 128, "%.1f", json_real_value(v));
	else
		snprintf(text, 128, "%s", json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-");
	text_clean(text);
	return text[0] ? text : strcpy(text, "-");
}

void table_print(json_t *rows, const struct column *columns, bool json)
{
	const char *bold = isatty(STDOUT_FILENO) && !getenv("NO_COLOR") ? "\033[1m" : "", *end = *bold ? "\033[0m" : "";
	char text[128];
	json_t *row;
	size_t i;

	if (json) {
		print_json(rows);
		return;
	}
	for (size_t line = 0; line <= json_array_size(rows); line++) {
		for (const struct column *c = columns; c->key; c++) {
			int width = (int)strlen(c->title);

			json_array_foreach(rows, i, row)
				width = MAX(width, (int)strlen(cell(row, c->key, text)));
			if (!c->right && !c[1].key)
				width = 0; /* no blanks at the end of a line */
			printf("%s%*s%s%s", line ? "" : bold, c->right ? width : -width,
			       line ? cell(json_array_get(rows, line - 1), c->key, text) : c->title, line ? "" : end,
			       c[1].key ? "  " : "\n");
		}
	}
}

const char *short_time(int64_t s, char text[32])
{
	if (s < 120)
		snprintf(text, 32, "%lld s", (long long)s);
	else if (s < 7200)
		snprintf(text, 32, "%lld min", (long long)(s / 60));
	else if (s < 172800)
		snprintf(text, 32, "%lld h", (long long)(s / 3600));
	else
		snprintf(text, 32, "%lld d", (long long)(s / 86400));
	return text;
}

const char *short_size(uint64_t bytes, char text[32])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned u = 0;
	double v = (double)bytes;

	for (; v >= 1024 && u + 1 < ARRAY_LEN(units); u++)
		v /= 1024;
	snprintf(text, 32, v < 10 && u && v != (uint64_t)v ? "%.1f %s" : "%.0f %s", v, units[u]);
	return text;
}
