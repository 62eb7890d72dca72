package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

func TestBadOptions(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		sentence string
		change   func(*Options)
		want     string
	}{
		{"no name", func(o *Options) { o.Name = "" }, `"" is no name of a coordinator: give it 1 to 63 of a-z, 0-9 and -`},
		{"capitals", func(o *Options) { o.Name = "A" }, `"A" is no name`},
		{"a long name", func(o *Options) { o.Name = strings.Repeat("a", 64) }, "is no name"},
		{"a name with an end of line", func(o *Options) { o.Name = "a\n" }, "is no name"},
		{"no address", func(o *Options) { o.Addr = "" }, `cannot listen at "": it must be HOST:PORT`},
		{"no port", func(o *Options) { o.Addr = "127.0.0.1" }, "it must be HOST:PORT"},
		{"a port that is none", func(o *Options) { o.Addr = "127.0.0.1:65536" }, "it must be HOST:PORT"},
		{"a host that is none", func(o *Options) { o.Addr = "not a host:0" }, `cannot listen at "not a host:0": lookup not a host`},
		{"an address of one link", func(o *Options) { o.Addr = "[fe80::1%lo]:0" }, "fe80::1%lo has no address that means the same on all machines"},
		{"an address of another machine", func(o *Options) { o.Addr = "192.0.2.1:0" }, "cannot listen at 192.0.2.1:0"},
		{"a port that is taken", func(o *Options) { o.Addr = taken.Addr().String() }, "address already in use"},
		{"nowhere to be reached", func(o *Options) { o.Advertise = "0.0.0.0" }, `cannot advertise "0.0.0.0": nobody can be reached there`},
		{"advertising no host", func(o *Options) { o.Advertise = "127.0.0.1:x" }, `cannot advertise "127.0.0.1:x"`},
		{"an other without a port", func(o *Options) { o.Join = []string{"localhost"} }, `cannot join "localhost": it must be HOST:PORT`},
		{"an other without a host", func(o *Options) { o.Join = []string{":1"} }, `cannot join ":1"`},
		{"an other at port 0", func(o *Options) { o.Join = []string{"a:0"} }, `cannot join "a:0"`},
		{"too many others", func(o *Options) { o.Join = make([]string, 65) }, "65 others to join; name at most 64"},
		{"a short key", func(o *Options) { o.Keys = [][]byte{make([]byte, 32), make([]byte, 16)} }, "key 2 has 16 bytes, not 32"},
		{"too many keys", func(o *Options) { o.Keys = make([][]byte, 9) }, "9 keys, not 1 to 8"},
		{"too much to tell", func(o *Options) { o.Meta = make([]byte, 513) }, "513 bytes to tell, more than 512"},
		{"telling what only memberlist may", func(o *Options) { o.Meta = []byte(farewell) }, "is what a coordinator says that leaves"},
		{
			"what memberlist finds",
			func(o *Options) {
				o.tune = func(c *memberlist.Config) { c.ProtocolVersion = 9 }
			},
			"protocol version '9' too high",
		},
	} {
		opts := options(t, "a")
		tc.change(&opts)
		c, err := Start(opts)
		if err == nil {
			t.Errorf("%s: it starts", tc.sentence)
			_ = c.Stop()
		} else if !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "gossip") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", tc.sentence, err)
		}
	}
	a := start(t, options(t, "a"))
	if err := a.Tell(make([]byte, 513)); err == nil {
		t.Error("too much is told later")
	}
	a.sees(t, aliveA)
}

func TestWhatOthersAreTold(t *testing.T) {
	for _, tc := range []struct{ sentence, addr, advertise, want string }{
		{"where it listens", "127.0.0.1:0", "", "127.0.0.1"},
		{"IPv6", "[::1]:0", "", "[::1]"},
		{"a name to listen at", "localhost:0", "127.0.0.1", "127.0.0.1"},
		{"every address of IPv4", "0.0.0.0:0", "127.0.0.2", "127.0.0.2"},
		{"every address", ":0", "127.0.0.2", "127.0.0.2"},
		{"every address, in full", "[::]:0", "[::1]", "[::1]"},
		{"IPv6 without brackets", "[::]:0", "::1", "[::1]"},
		{"a port of its own", "127.0.0.1:0", "127.0.0.3:7946", "127.0.0.3:7946"},
		{"a port of its own, IPv6", "127.0.0.1:0", "[::2]:7946", "[::2]:7946"},
		{"a name", "127.0.0.1:0", "localhost:7946", "localhost:7946"},
	} {
		opts := options(t, "a")
		if strings.HasPrefix(tc.addr, "[::1]") && !hasIPv6() {
			t.Logf("%s: there is none here", tc.sentence)
			continue
		}
		opts.Addr, opts.Advertise = tc.addr, tc.advertise
		a := start(t, opts)
		at := a.list.LocalNode()
		if at.Address() != a.Addr().String() {
			t.Errorf("%s: memberlist tells %v, not %v", tc.sentence, at.Address(), a.Addr())
		}
		got := a.Addr().String()
		if a.Addr().Addr().IsLoopback() && strings.HasPrefix(tc.want, "localhost") {
			got = strings.Replace(got, "127.0.0.1", "localhost", 1)
			got = strings.Replace(got, "[::1]", "localhost", 1)
		}
		if got != tc.want && !strings.HasPrefix(got, tc.want+":") {
			t.Errorf("%s: %s, not %s", tc.sentence, got, tc.want)
		}
	}
}

func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

// TestGuess: what is told where nothing is said depends on the machine, but it is never of no use.
func TestGuess(t *testing.T) {
	for _, listen := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		at, err := guess(t.Context(), listen, []string{"127.0.0.1:7946", "not a host:1"})
		switch {
		case err != nil && !strings.Contains(err.Error(), "say which of them to advertise"):
			t.Error(err)
		case err == nil && (at.Addr().IsLoopback() || at.Addr().IsUnspecified() || listen.Is4() && !at.Addr().Is4()):
			t.Errorf("%v for %v", at, listen)
		}
	}
}

// node is what memberlist tells of somebody.
func node(name string, n int) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.IP{127, 0, 0, 1}, Port: uint16(n)}
}

func TestWhoIsBelieved(t *testing.T) {
	for _, tc := range []struct {
		sentence string
		change   func(*memberlist.Node)
		want     string
	}{
		{"a coordinator", func(*memberlist.Node) {}, ""},
		{"one at an address of IPv6", func(n *memberlist.Node) { n.Addr = net.IPv6loopback }, ""},
		{"one with a long name", func(n *memberlist.Node) { n.Name = strings.Repeat("z", 64) }, "its name"},
		{"one with no name", func(n *memberlist.Node) { n.Name = "" }, "its name"},
		{"one whose name would be read as more", func(n *memberlist.Node) { n.Name = "a\nb" }, "its name"},
		{"one that tells too much", func(n *memberlist.Node) { n.Meta = make([]byte, 513) }, "513 bytes"},
		{"one nowhere", func(n *memberlist.Node) { n.Addr = nil }, "address"},
		{"one at an address that is none", func(n *memberlist.Node) { n.Addr = make([]byte, 5) }, "address"},
		{"one everywhere", func(n *memberlist.Node) { n.Addr = net.IPv4zero }, "address"},
		{"one at many places", func(n *memberlist.Node) { n.Addr = net.IPv4allsys }, "address"},
	} {
		n := node("b", 1)
		tc.change(n)
		err := newMembers("a", slog.New(slog.DiscardHandler)).NotifyAlive(n)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, not %q", tc.sentence, err, tc.want)
		}
	}
}

func TestHowManyAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said book
		m := newMembers("a", said.log())
		come := func(n int) error {
			who := node(fmt.Sprint("n", n), n)
			if err := m.NotifyAlive(who); err != nil {
				return err
			}
			m.NotifyJoin(who)
			return nil
		}
		for n := range maxMembers {
			if err := come(n); err != nil {
				t.Fatal(err)
			}
		}
		full := func(why string) {
			t.Helper()
			if err := come(100); err == nil || !strings.Contains(err.Error(), "64 coordinators already") {
				t.Errorf("%s: %v", why, err)
			}
		}
		full("all are alive")
		if err := m.NotifyAlive(node("n3", 3)); err != nil {
			t.Errorf("one that is known: %v", err)
		}
		m.NotifyLeave(node("n3", 3))
		if got := m.lost(); len(got) != 1 || got[0].Port() != 3 {
			t.Errorf("lost: %v", got)
		}
		time.Sleep(spared - 1)
		full("memberlist may still know the dead one")
		time.Sleep(time.Nanosecond)
		if err := come(100); err != nil {
			t.Errorf("one has been dead for long: %v", err)
		}
		m.NotifyLeave(node("n4", 4))
		_, changed := m.all()
		time.Sleep(remembered - 1)
		m.forget(remembered)
		select {
		case <-changed:
			t.Error("it is forgotten too soon")
		default:
		}
		time.Sleep(time.Nanosecond)
		m.forget(remembered)
		<-changed
		if all, _ := m.all(); len(all) != maxMembers-1 {
			t.Errorf("%d are known", len(all))
		}
		if lines := strings.Count(said.String(), "\n"); lines != maxMembers+3 {
			t.Errorf("%d lines", lines)
		}
		for range 10_000 {
			m.NotifyLeave(node("n5", 5))
			m.NotifyJoin(node("n5", 5))
		}
		if lines := strings.Count(said.String(), "\n"); lines > 4*maxMembers {
			t.Errorf("%d lines of one that comes and goes", lines)
		}
	})
}

// TestJoiningIsBounded: a round tries so many and no more, and says that it failed once a minute.
func TestJoiningIsBounded(t *testing.T) {
	t.Parallel()
	opts := options(t, "a")
	tries := 0 // by one goroutine, of the round
	opts.every = time.Hour
	opts.wrap = func(below memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
		return refuses{below, func() { tries++ }}
	}
	a := start(t, opts) // It has nobody to join by itself.
	opts.Log = a.log.log()
	for n := range maxJoin {
		opts.Join = append(opts.Join, fmt.Sprintf("127.1.0.%d:1", n))
	}
	r := newRejoin(a.Cluster, opts)
	r.round(t.Context())
	if tries != maxTries {
		t.Errorf("%d tries", tries)
	}
	r.round(t.Context())
	if n := strings.Count(a.log.String(), "not all"); n != 1 {
		t.Errorf("said %d times", n)
	}
	r.said = r.said.Add(-complain)
	r.round(t.Context())
	if n := strings.Count(a.log.String(), "not all"); n != 2 {
		t.Errorf("said %d times after a minute", n)
	}
}

// refuses counts connections and makes none.
type refuses struct {
	memberlist.NodeAwareTransport
	count func()
}

func (r refuses) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	r.count()
	return nil, errors.New("refused")
}

// TestStrangersConnections: they are as many as may be, each of as many bytes, and end with the coordinator.
func TestStrangersConnections(t *testing.T) {
	a := start(t, options(t, "a"))
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		return conn
	}
	big := dial()
	header := "\xf4\x09elsewhere\x0a\x01\x00\x00\x00" // "16 MiB follow", and no key is needed to say so
	_, _ = io.WriteString(big, header)
	sent, err := io.Copy(big, zeros{})
	a.log.has(t, "more than 256 KiB")
	if sent > 16<<20 || err == nil {
		t.Errorf("%d bytes were taken, %v", sent, err)
	}
	var conns []net.Conn
	for range maxStreams {
		conns = append(conns, dial())
	}
	over := dial()
	if _, err := over.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one more than may be: %v", err)
	}
	_ = conns[0].Close()
	b := start(t, options(t, "b", a)) // A place is free again.
	b.sees(t, aliveA, aliveB)
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range conns[1:] {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection outlives the coordinator: %v", err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestNothingIsLeftRunning: also in the middle of joining one that does not answer.
func TestNothingIsLeftRunning(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	before := goleak.IgnoreCurrent()
	opts := options(t, "a")
	opts.Join = []string{silent.Addr().String()}
	a := start(t, opts)
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, options(t, "b", a))
	b.sees(t, aliveA, aliveB)
	begin := time.Now()
	if err := errors.Join(a.Stop(), b.Leave(t.Context())); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	if took := time.Since(begin); took > 2*goodbye+time.Second {
		t.Errorf("it takes %v", took)
	}
	if err := leak(before); err != nil {
		t.Error(err)
	}
}

func TestWhatMemberlistSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		l := newLines(slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))
		memberlists := log.New(l, "", 0)
		for _, tc := range []struct{ sentence, line, want string }{
			{"debug", "[DEBUG] memberlist: Stream connection", `level=DEBUG msg="gossip: Stream connection"`},
			{"information, which members say better", "[INFO] memberlist: Suspect b", `level=DEBUG msg="gossip: Suspect b"`},
			{"a warning", "[WARN] memberlist: Refuting", `level=WARN msg="gossip: Refuting"`},
			{"an error, which is another's", "[ERR] memberlist: Failed", `level=WARN msg="gossip: Failed"`},
			{"an error in full", "[ERROR] memberlist: Failed", `level=WARN msg="gossip: Failed"`},
			{"no level that is known", "[NEW] memberlist: x", `level=WARN msg="gossip: [NEW] memberlist: x"`},
			{"no level at all", "Err: Could not", `level=WARN msg="gossip: Err: Could not"`},
		} {
			said.Reset()
			memberlists.Print(tc.line)
			if !strings.Contains(said.String(), tc.want) {
				t.Errorf("%s: %s", tc.sentence, said.String())
			}
		}
		said.Reset()
		for range 1000 {
			memberlists.Print("[ERR] memberlist: Decrypt packet failed")
		}
		if n := strings.Count(said.String(), "\n"); n > linesAtOnce {
			t.Errorf("%d lines at once", n)
		}
		time.Sleep(time.Minute)
		memberlists.Print("[ERR] memberlist: Decrypt packet failed")
		if !strings.Contains(said.String(), "unsaid=995") {
			t.Errorf("how many were not said: %s", said.String())
		}
		said.Reset()
		l.ended.Store(true)
		memberlists.Print("[DEBUG] memberlist: closed")
		if said.Len() > 0 {
			t.Errorf("it goes on after its end: %s", said.String())
		}
	})
}
