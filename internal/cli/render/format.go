// Package render shows measurements and agents: as a live table on a terminal, as plain lines in a
// pipe, as JSON, JSON lines, CSV and JUnit. Whatever came from a target or an agent is escaped here,
// at the output, so that no certificate or record can steer a terminal.
package render

import (
	"fmt"
	"slices"
	"strings"
)

// Format is how data is written to stdout.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	JSONL Format = "jsonl"
	CSV   Format = "csv"
	JUnit Format = "junit"
)

// Formats returns all formats.
func Formats() []string {
	return []string{string(Table), string(JSON), string(JSONL), string(CSV), string(JUnit)}
}

// ParseFormat reads the name of a format.
func ParseFormat(s string) (Format, error) {
	if !slices.Contains(Formats(), s) {
		return "", fmt.Errorf("%q is not a format; use one of %s", s, strings.Join(Formats(), ", "))
	}
	return Format(s), nil
}
