package cluster

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// linesAtOnce bounds what is said of the gossip itself, beside one line a minute: one who has no key, or another, may knock
// all day.
const linesAtOnce = 10

// lines hands memberlist's words to slog: each Write is a line, "[LEVEL] memberlist: words".
type lines struct {
	log    *slog.Logger
	often  *rate.Limiter // of lines above debug
	unsaid atomic.Int64  // of those since the last that was written
	ended  atomic.Bool   // A memberlist that is being stopped complains of it.
}

func newLines(log *slog.Logger) *lines {
	return &lines{log: log, often: rate.NewLimiter(rate.Every(complain), linesAtOnce)}
}

// levels are what memberlist's words mean here. What it calls an error is a message that could not be sent or was not
// understood: others' fault as a rule, and it goes on. What it calls information is what members say better.
var levels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelDebug,
	"WARN": slog.LevelWarn, "ERR": slog.LevelWarn, "ERROR": slog.LevelWarn,
}

// Write writes a line.
func (l *lines) Write(p []byte) (int, error) {
	if l.ended.Load() {
		return len(p), nil
	}
	line, level := strings.TrimSpace(string(p)), slog.LevelWarn
	if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "] "); ok {
		if known, ok := levels[name]; ok {
			line, level = rest, known
		}
	}
	line = "gossip: " + strings.TrimPrefix(line, "memberlist: ")
	var more []any
	if level > slog.LevelDebug {
		if !l.often.Allow() {
			l.unsaid.Add(1)
			return len(p), nil
		}
		if n := l.unsaid.Swap(0); n > 0 {
			more = []any{"unsaid", n}
		}
	}
	l.log.Log(context.Background(), level, line, more...)
	return len(p), nil
}
