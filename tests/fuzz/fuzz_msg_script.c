/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages that a case of the corpus spells out, one a line, with the answers they must get:
 *
 *   send dev|ring OPCODE[+EXT] root|nK WORD... [= ERROR]
 *        a header with the opcode, about the root or the K-th node that was looked up, with EXT
 *        extensions of 8 bytes announced; then the bytes of the words
 *   raw dev|ring WORD... [= ERROR]
 *        the bytes of the words alone
 *
 *   WORD: "text    the text with its NUL
 *         hK       the K-th handle that was opened
 *         NxHH     N times the byte HH
 *         else     bytes in hex
 *   ERROR: 0 or -errno
 *
 * Other lines are not for this file. A line that makes no sense ends the program.
 */
#include "fuzz/fuzz_msg.h"

#include <linux/fuse.h>
#include <stdlib.h>

static uint32_t hex(const char *s, size_t len, uint8_t *to)
{
	for (size_t k = 0; k + 1 < len; k += 2) {
		char two[3] = { s[k], s[k + 1], 0 }, *end;
		to[k / 2] = (uint8_t)strtoul(two, &end, 16);
		MUST(!*end);
	}
	MUST(len % 2 == 0);
	return (uint32_t)len / 2;
}

/* The bytes of a word; returns how many. */
static uint32_t word_bytes(struct world *w, const char *word, uint8_t *to)
{
	unsigned long n = strtoul(word, NULL, 10);
	const char *x = strchr(word, 'x');

	if (*word == '"') {
		strcpy((char *)to, word + 1);
		return (uint32_t)strlen(word);
	}
	if (*word == 'h') {
		n = strtoul(word + 1, NULL, 10);
		MUST(n < w->nr_handles && n < WORLD_KNOWN);
		memcpy(to, &w->handles[n], 8);
		return 8;
	}
	if (x) {
		MUST(n <= 65536 && hex(x + 1, strlen(x + 1), to) == 1);
		memset(to, to[0], n);
		return (uint32_t)n;
	}
	return hex(word, strlen(word), to);
}

static void send_line(struct world *w, char *line, struct message *message)
{
	char *save, *kind = strtok_r(line, " ", &save), *way = strtok_r(NULL, " ", &save), *word;
	struct fuse_in_header header = { .nodeid = FUSE_ROOT_ID, .unique = 2 * ++w->sent };
	bool raw = !strcmp(kind, "raw");

	MUST(way && (raw || !strcmp(kind, "send")));
	message->ring = !strcmp(way, "ring");
	message->len = 0;
	if (!raw) {
		char *op = strtok_r(NULL, " ", &save), *node = strtok_r(NULL, " ", &save);

		MUST(op && node);
		header.opcode = (uint32_t)strtoul(op, &op, 10);
		header.total_extlen = (uint16_t)(*op == '+' ? strtoul(op + 1, NULL, 10) : 0);
		if (*node == 'n')
			header.nodeid = w->nodes[strtoul(node + 1, NULL, 10) % WORLD_KNOWN];
		message->len = sizeof(header);
	}
	while ((word = strtok_r(NULL, " ", &save)) && *word != '=') {
		MUST(message->len < 2000 || *word != '"');
		message->len += word_bytes(w, word, message->bytes + message->len);
		MUST(message->len <= sizeof(message->bytes) - 4096);
	}
	header.len = message->len;
	if (!raw)
		memcpy(message->bytes, &header, sizeof(header));
	world_send(w, message);
	world_wait_below(w, 1);
	if (word) {
		int want = atoi(strtok_r(NULL, " ", &save));
		if (w->last_err != want)
			fprintf(stderr, "answered with %d, not with %d\n", w->last_err, want);
		MUST(w->last_err == want);
	}
}

void send_script(struct world *w, const char *text, struct message *message)
{
	char *copy = strdup(text), *save, *line;

	MUST(copy);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, "send ", 5) || !strncmp(line, "raw ", 4))
			send_line(w, line, message);
	free(copy);
}

