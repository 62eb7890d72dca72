package render

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean escapes what could steer a terminal or reorder a line: control characters (C0, DEL, C1),
// line and paragraph separators, invisible format characters such as the overrides of direction,
// and bytes that are not UTF-8.
func Clean(s string) string {
	if !dirty(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1, r < 0x80 && unsafe(r):
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unsafe(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case unsafe(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}

// dirty says whether Clean has anything to do.
func dirty(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, unsafe)
}

// unsafe says whether r must not reach a terminal as it is.
func unsafe(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// cleanJSON escapes the same inside of a JSON document. Outside of its strings JSON has no such
// characters but spaces and newlines; C0 inside of them is escaped already.
func cleanJSON(doc []byte) []byte {
	if !strings.ContainsFunc(string(doc), escapedInJSON) {
		return doc
	}
	var b strings.Builder
	for _, r := range string(doc) {
		switch {
		case !escapedInJSON(r):
			b.WriteRune(r)
		case r > 0xffff: // beyond the basic plane JSON writes a pair (RFC 8259, 7)
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}

// escapedInJSON says whether cleanJSON writes r as an escape.
func escapedInJSON(r rune) bool { return r >= 0x7f && unsafe(r) }
