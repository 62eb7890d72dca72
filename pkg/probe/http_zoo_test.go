package probe

import (
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// httpAnimals are web servers that mean harm, how each is to be seen, and a word that says why.
var httpAnimals = []struct {
	name  string
	fault probetest.HTTPFault
	want  pb.Failure
	text  string
}{
	{"a header of one byte every fifth of a second", probetest.SlowHeader, pb.Failure_FAILURE_HTTP_TIMEOUT, ""},
	{"a body of one byte every fifth of a second", probetest.SlowBody, pb.Failure_FAILURE_HTTP_TIMEOUT, ""},
	{"fields without end", probetest.EndlessHeader, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
	{"a field without end", probetest.EndlessLine, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
	{"interim responses without end", probetest.EndlessInterim, pb.Failure_FAILURE_HTTP_MALFORMED, "interim"},
	{"a body without end", probetest.EndlessBody, pb.Failure_FAILURE_NONE, ""},
	{"chunks of one byte", probetest.ByteChunks, pb.Failure_FAILURE_NONE, ""},
	{"a chunk's extension without end", probetest.EndlessChunk, pb.Failure_FAILURE_HTTP_MALFORMED, ""},
	{"chunks that are none", probetest.NoChunks, pb.Failure_FAILURE_HTTP_MALFORMED, "chunk"},
	{"eight megabytes of zeros in eight kilobytes", probetest.GzipBomb, pb.Failure_FAILURE_NONE, ""},
	{"plain text that says it is compressed", probetest.NoGzip, pb.Failure_FAILURE_HTTP_MALFORMED, "gzip"},
	{"a length that is too long", probetest.TooLong, pb.Failure_FAILURE_HTTP_CLOSED, "995 bytes"},
	{"two lengths", probetest.TwoLengths, pb.Failure_FAILURE_HTTP_MALFORMED, "Content-Length"},
	{"an RST amid the body", probetest.ResetInBody, pb.Failure_FAILURE_HTTP_RESET, ""},
	{"a page without a header", probetest.Bare, pb.Failure_FAILURE_HTTP_MALFORMED, `it begins with "<html>`},
	{"escapes in every place", probetest.Ugly, pb.Failure_FAILURE_NONE, ""},
	{"a greeting of another protocol", probetest.GreetsFirst, pb.Failure_FAILURE_HTTP_MALFORMED, "SSH-2.0"},
	{"an upgrade that nobody asked for", probetest.UpgradesAlone, pb.Failure_FAILURE_HTTP_MALFORMED, "switches"},
	{"GOAWAY at once", probetest.GoAway, pb.Failure_FAILURE_HTTP_CLOSED, "ENHANCE_YOUR_CALM"},
	{"RST_STREAM for an answer", probetest.ResetStream, pb.Failure_FAILURE_HTTP_RESET, "INTERNAL_ERROR"},
	{"CONTINUATION without end", probetest.EndlessHeader2, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
	{"a header that grows when it is unpacked", probetest.PackedHeader, pb.Failure_FAILURE_HTTP_TOO_LARGE, "header"},
	{"pings without end", probetest.EndlessPings, pb.Failure_FAILURE_HTTP_TOO_LARGE, "control"},
	{"settings without end", probetest.EndlessSettings, pb.Failure_FAILURE_HTTP_TOO_LARGE, "control"},
	{"a body over HTTP/2 without end", probetest.EndlessBody2, pb.Failure_FAILURE_NONE, ""},
	{"a body that is padding", probetest.Padding, pb.Failure_FAILURE_HTTP_TOO_LARGE, "too much"},
	{"data before the header", probetest.DataFirst, pb.Failure_FAILURE_HTTP_MALFORMED, "without a header"},
	{"a push that was refused", probetest.Push, pb.Failure_FAILURE_HTTP_MALFORMED, ""},
	{"a length over HTTP/2 that is too long", probetest.WrongLength, pb.Failure_FAILURE_HTTP_MALFORMED, "Content-Length"},
	{"HTTP/1.1 where HTTP/2 was agreed on", probetest.SpeaksHTTP1, pb.Failure_FAILURE_HTTP_MALFORMED, "HTTP/1"},
	{"settings and then silence", probetest.MuteAfterSettings, pb.Failure_FAILURE_HTTP_TIMEOUT, ""},
}

func TestZooHTTP(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"127.0.0.2"}}, true)
	config := serverConfig(cert)
	config.NextProtos = []string{"h2"}
	type animal = struct {
		name  string
		fault probetest.HTTPFault
		want  pb.Failure
		text  string
	}
	all(t, func(a animal) string { return a.name }, httpAnimals, func(t *testing.T, a animal) func(*testing.T) {
		env := newEnv(t, nil)
		env.Roots = roots
		scheme, tlsConfig := "http", config
		if a.fault >= probetest.GoAway {
			scheme = "https"
		} else {
			tlsConfig = nil
		}
		host := must[*probetest.Host](t)(probetest.ListenHTTPFault(at("127.0.0.2"), tlsConfig, a.fault))
		r := run(t, env, httpSpec(&pb.HTTPSpec{Url: scheme + "://" + host.Addr().String() + "/", MaxRedirects: 5}))
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			e := s.GetEvidence()
			if s.GetFailure() != a.want || !strings.Contains(e.GetText(), a.text) {
				t.Errorf("%s (%s), want %s (%s)", Short(s.GetFailure()), e.GetText(), Short(a.want), a.text)
			}
			if took := s.GetDuration().AsDuration(); took > 2*httpTimeout+time.Second {
				t.Errorf("took %v", took)
			}
			if h := e.GetHttp(); h.GetBodySize() > maxBody || h.GetBodyCut() != (a.fault == probetest.EndlessBody || a.fault == probetest.EndlessBody2 || a.fault == probetest.GzipBomb) {
				t.Errorf("a body of %d bytes, cut: %v", h.GetBodySize(), h.GetBodyCut())
			}
			checkTame(t, r)
		}
	})
}

// TestEvilServersCostLittle looks at the heap while each server that sends without end is at it.
func TestEvilServersCostLittle(t *testing.T) {
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"127.0.0.2"}}, true)
	config := serverConfig(cert)
	config.NextProtos = []string{"h2"}
	env := newEnv(t, nil)
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // The heap is to be what is used, not what was.
	for _, a := range httpAnimals {
		if a.want == pb.Failure_FAILURE_HTTP_TIMEOUT {
			continue // They send next to nothing.
		}
		scheme, tlsConfig := "http", config
		if a.fault >= probetest.GoAway {
			scheme = "https"
		} else {
			tlsConfig = nil
		}
		host := must[*probetest.Host](t)(probetest.ListenHTTPFault(at("127.0.0.2"), tlsConfig, a.fault))
		spec := httpSpec(&pb.HTTPSpec{Url: scheme + "://" + host.Addr().String() + "/"})
		if grown := growth(func() { run(t, env, spec) }); grown > 8<<20 {
			t.Errorf("%s: the heap grew by %d KiB", a.name, grown>>10)
		}
	}
}

// growth is how much the heap grows while f runs, at its highest.
func growth(f func()) uint64 {
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done := make(chan struct{})
	var highest uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				runtime.ReadMemStats(&now)
				highest = max(highest, now.HeapAlloc)
			}
		}
	})
	f()
	close(done)
	wg.Wait()
	return highest - min(highest, before.HeapAlloc)
}
