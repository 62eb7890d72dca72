package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// linesEvery and linesAtOnce bound what is said of connections at all: where thousands come at once, or where a
	// stranger knocks all day, there is a line or more for each.
	linesEvery, linesAtOnce = time.Second, 20
)

// usual are warnings of nothing that is wrong: of one of several servers that waits for the others, which the coordinator
// says itself, once; and of settings that are meant.
var usual = []string{
	"Waiting for routing to be established", "JetStream has not established contact with a meta leader", "Metalayer blocking snapshot",
	"TLS certificate chain and hostname of solicited routes will not be verified", // VerifyConnection does
	`Clients that are not using "TLS Handshake First"`,
}

// logger hands the server's words to slog. Notices are the server's start and stop: debug.
type logger struct {
	log    *slog.Logger
	often  *rate.Limiter // of lines about connections
	unsaid *atomic.Int64 // of those since the last that was written
}

func newLogger(log *slog.Logger) logger {
	return logger{log, rate.NewLimiter(rate.Every(linesEvery), linesAtOnce), new(atomic.Int64)}
}

func (l logger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Warnf(format string, v ...any) {
	line := fmt.Sprintf(format, v...)
	if slices.ContainsFunc(usual, func(begin string) bool { return strings.HasPrefix(line, begin) }) {
		l.log.Debug(line)
		return
	}
	l.say(slog.LevelWarn, line)
}
func (l logger) Fatalf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Errorf(format string, v ...any) { l.say(slog.LevelError, fmt.Sprintf(format, v...)) }
func (l logger) Debugf(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Tracef(string, ...any)          {}

// say writes a line. Those about connections, which have a number there, are counted where there are too many.
func (l logger) say(level slog.Level, line string) {
	if !strings.Contains(line, " - cid:") {
		l.log.Log(context.Background(), level, line)
		return
	}
	if !l.often.Allow() {
		l.unsaid.Add(1)
		return
	}
	var more []any
	if n := l.unsaid.Swap(0); n > 0 {
		more = []any{"unsaid", n}
	}
	l.log.Log(context.Background(), level, line, more...)
}
