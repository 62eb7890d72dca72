package embedded

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestALineForEachConnectionIsTooMuch(t *testing.T) {
	var said bytes.Buffer
	l := newLogger(slog.New(slog.NewTextHandler(&said, nil)))
	const many = 9000
	for n := range many {
		l.Errorf("127.0.0.1:%d - cid:%d - TLS handshake error: EOF", n, n)
	}
	l.Errorf("JetStream: disk full")
	lines := strings.Count(said.String(), "\n")
	if lines < linesAtOnce+1 || lines > many/10 {
		t.Errorf("%d lines", lines)
	}
	if !strings.Contains(said.String(), "disk full") {
		t.Error("what is not about a connection was not said")
	}
	said.Reset()
	l.often.SetBurst(many) // the time has come
	l.often.SetLimit(1e9)
	for n := range 2 {
		l.Warnf("127.0.0.1:1 - cid:%d - slow", n)
	}
	if got := said.String(); !strings.Contains(got, "unsaid=8") || strings.Count(got, "unsaid") != 1 {
		t.Errorf("how many were not said is said once: %s", got)
	}
}
