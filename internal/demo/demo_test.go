package demo

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/cli"
)

func TestDemo(t *testing.T) {
	// The demo compares its verdicts itself: it fails if one is not what the scene was made for.
	var out, errs bytes.Buffer
	if err := run(t.Context(), &out, &errs); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &errs)
	}
	for _, s := range scenes() {
		for _, want := range []string{s.title, "$ elsewhere " + strings.Join(s.words, " "), s.behind} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q:\n%s", want, &out)
			}
		}
	}
}

func TestDemoEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &stopAt{word: "2/7", stop: cancel}
	var coded *cli.Error
	if err := run(ctx, out, &bytes.Buffer{}); !errors.As(err, &coded) || coded.Code != cli.ExitInterrupted {
		t.Errorf("%v", err)
	}
}

// stopAt calls stop when a word is written.
type stopAt struct {
	word string
	stop func()
}

func (s *stopAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.word)) {
		s.stop()
	}
	return len(p), nil
}

func TestTheFaultsAreThere(t *testing.T) {
	// What the scenes are about, seen by a plain dialer, before anyone of ours looks.
	world, err := newInternet()
	if err != nil {
		t.Fatal(err)
	}
	defer world.Close()
	for _, c := range []struct {
		what string
		host byte
		port uint16
		ok   bool
	}{
		{"the healthy shop accepts", shopHost, httpsPort, true},
		{"the API accepts", apiHost, httpsPort, true},
		{"its detour is silent", apiHost + detour, httpsPort, false},
		{"the origin accepts", originHost, httpsPort, true},
		{"the payment page accepts", payHost, httpsPort, true},
		{"so does its detour, with another certificate", payHost + detour, httpsPort, true},
		{"the old host refuses", oldHost, httpsPort, false},
		{"the films accept", filmsHost, httpsPort, true},
		{"so does their detour, with another answer", filmsHost + detour, httpsPort, true},
		{"the control accepts", controlHost, httpsPort, true},
	} {
		patience := time.Minute
		if !c.ok {
			patience = 500 * time.Millisecond
		}
		conn, err := net.DialTimeout("tcp", world.at(c.host, c.port).String(), patience)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}
