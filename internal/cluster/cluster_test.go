package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(ending{m}) }

// ending waits after all tests until what memberlist still waited for is over: its Shutdown does not.
type ending struct{ *testing.M }

func (e ending) Run() int {
	code := e.M.Run()
	_ = leak() // goleak says it.
	return code
}

// leak is what still runs when it should long have ended.
func leak(but ...goleak.Option) (err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = goleak.Find(but...); err == nil { // It looks for half a second.
			return nil
		}
	}
	return err
}

// patience is how long anything may take.
const patience = 20 * time.Second

// book keeps what a coordinator logs.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// has waits for a line.
func (b *book) has(t *testing.T, text string) {
	t.Helper()
	for deadline := time.After(patience); !strings.Contains(b.String(), text); {
		select {
		case <-deadline:
			t.Fatalf("no line has %q:\n%s", text, b)
		case <-time.After(time.Millisecond):
		}
	}
}

func (b *book) log() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// coordinator is one with its log.
type coordinator struct {
	*Cluster
	log *book
}

// keyOf is a key of a test's own: a port that one test gives up may be taken by another.
func keyOf(t *testing.T) []byte { return slices.Concat([]byte(t.Name()), make([]byte, 32))[:32] }

// options are those of a coordinator of a test that joins others. It talks faster than is usual.
func options(t *testing.T, name string, join ...*coordinator) Options {
	opts := Options{
		Name: name, Addr: "127.0.0.1:0", Keys: [][]byte{keyOf(t)}, Meta: []byte("meta of " + name),
		every: 100 * time.Millisecond,
		tune:  func(c *memberlist.Config) { c.GossipInterval = 20 * time.Millisecond },
	}
	for _, other := range join {
		opts.Join = append(opts.Join, other.Addr().String())
	}
	return opts
}

// soon makes deaths to be noticed soon.
func soon(c *memberlist.Config) {
	c.GossipInterval = 20 * time.Millisecond
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = 200*time.Millisecond, 100*time.Millisecond, 3
}

// start starts a coordinator until the test ends.
func start(t *testing.T, opts Options) *coordinator {
	t.Helper()
	c := &coordinator{log: &book{}}
	opts.Log = c.log.log()
	var err error
	if c.Cluster, err = Start(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// sees waits until a coordinator sees what is wanted, "name state meta" each, and returns that.
func (c *coordinator) sees(t *testing.T, want ...string) []Member {
	t.Helper()
	for deadline := time.After(patience); ; {
		all, changed := c.Members()
		var got []string
		for _, m := range all {
			if strings.HasPrefix(m.Name, asking) {
				continue
			}
			got = append(got, fmt.Sprintf("%s %s %s", m.Name, m.State, m.Meta))
		}
		diff := cmp.Diff(want, got)
		if diff == "" {
			return all
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("it is not seen (-want +got):\n%s%s", diff, c.log)
		}
	}
}

const (
	aliveA, aliveB, aliveC = "a alive meta of a", "b alive meta of b", "c alive meta of c"
)

// three are three that see each other; b and c join a, which joins nobody.
func three(t *testing.T, change func(*Options)) (a, b, c *coordinator) {
	t.Helper()
	begin := func(opts Options) *coordinator {
		change(&opts)
		return start(t, opts)
	}
	a = begin(options(t, "a"))
	b = begin(options(t, "b", a))
	c = begin(options(t, "c", a))
	for _, each := range []*coordinator{a, b, c} {
		each.sees(t, aliveA, aliveB, aliveC)
	}
	return a, b, c
}

func TestThreeSeeEachOther(t *testing.T) {
	t.Parallel()
	a, b, c := three(t, func(*Options) {})
	for _, each := range []*coordinator{a, b, c} {
		all, _ := each.Members()
		for i, other := range []*coordinator{a, b, c} {
			if all[i].Addr != other.Addr() || time.Since(all[i].Since) > patience {
				t.Errorf("%v, not at %v", all[i], other.Addr())
			}
		}
	}
	if err := b.Tell([]byte("news")); err != nil {
		t.Fatal(err)
	}
	for _, each := range []*coordinator{a, b, c} {
		each.sees(t, aliveA, "b alive news", aliveC)
	}
	all, changed := a.Members()
	all[0].Meta[0] = 'X'
	if err := a.Tell([]byte("meta of a")); err != nil { // no news
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("nothing has changed")
	default:
	}
	a.sees(t, aliveA, "b alive news", aliveC)
	if said := a.log.String() + b.log.String() + c.log.String(); strings.Contains(said, "does not answer") || strings.Contains(said, "not all") {
		t.Errorf("complaints:\n%s", said)
	}
}

func TestDeathAndReturn(t *testing.T) {
	t.Parallel()
	quick := func(o *Options) { o.tune = soon }
	a, b, c := three(t, quick)
	was := c.Addr()
	if err := errors.Join(c.Stop(), c.Stop(), c.Leave(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, each := range []*coordinator{a, b} {
		all := each.sees(t, aliveA, aliveB, "c dead meta of c")
		if all[2].Addr != was {
			t.Errorf("c was at %v, not %v", was, all[2].Addr)
		}
		each.log.has(t, "a coordinator does not answer any more")
	}
	if err := c.Tell(nil); !errors.Is(err, errStopped) {
		t.Errorf("one that has stopped tells something: %v", err)
	}
	if err := c.Rekey([][]byte{keyOf(t)}); !errors.Is(err, errStopped) {
		t.Errorf("one that has stopped takes keys: %v", err)
	}
	taken, err := net.Listen("tcp", was.String()) // so that it comes back at another
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	opts := options(t, "c", a)
	quick(&opts)
	again := start(t, opts)
	if again.Addr() == was {
		t.Fatal("it is where it was")
	}
	for _, each := range []*coordinator{a, b, again} {
		all := each.sees(t, aliveA, aliveB, aliveC)
		if all[2].Addr != again.Addr() {
			t.Errorf("c is at %v, not %v", again.Addr(), all[2].Addr)
		}
	}
}

// TestReturnBeforeItsDeathIsNoticed: one is killed and started again at another address at once, while the others take
// the old one for alive.
func TestReturnBeforeItsDeathIsNoticed(t *testing.T) {
	t.Parallel()
	quick := func(o *Options) { o.tune = soon }
	a, b, c := three(t, quick)
	was := c.Addr()
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	opts := options(t, "c", a)
	quick(&opts)
	opts.Meta = []byte("new")
	again := start(t, opts)
	for _, each := range []*coordinator{a, b, again} {
		each.sees(t, aliveA, aliveB, "c alive new")
	}
	again.log.has(t, "two coordinators have the same name")
	for _, addr := range []netip.AddrPort{was, again.Addr()} {
		again.log.has(t, addr.String())
	}
	if n := strings.Count(again.log.String(), "two coordinators"); n > 1 {
		t.Errorf("that was said %d times", n)
	}
}

func TestLeaveAndReturn(t *testing.T) {
	t.Parallel()
	a, b, c := three(t, func(*Options) {})
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, each := range []*coordinator{a, b, c} {
		each.sees(t, aliveA, aliveB, "c left meta of c")
	}
	a.log.has(t, "a coordinator has left")
	if said := a.log.String() + b.log.String(); strings.Contains(said, "does not answer") {
		t.Errorf("a goodbye is no death:\n%s", said)
	}
	opts := options(t, "c", a)
	opts.Addr, opts.Meta = c.Addr().String(), []byte("back")
	back := start(t, opts)
	for _, each := range []*coordinator{a, b, back} {
		each.sees(t, aliveA, aliveB, "c alive back")
	}
	opts.Addr, opts.Meta = "127.0.0.1:0", []byte("elsewhere")
	if err := back.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	elsewhere := start(t, opts)
	for _, each := range []*coordinator{a, b, elsewhere} {
		each.sees(t, aliveA, aliveB, "c alive elsewhere")
	}
}

func TestNoTimeToSayGoodbye(t *testing.T) {
	t.Parallel()
	a := start(t, options(t, "a"))
	b := start(t, options(t, "b", a))
	b.sees(t, aliveA, aliveB)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Leave(ctx); err == nil || !strings.Contains(err.Error(), "no time to say goodbye") {
		t.Errorf("left with %v", err)
	}
	if conn, err := net.Dial("tcp", b.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
	alone := start(t, options(t, "alone"))
	if err := alone.Leave(t.Context()); err != nil {
		t.Errorf("one that is alone has nobody to say it to: %v", err)
	}
}

func TestTwoOfOneName(t *testing.T) {
	t.Parallel()
	a := start(t, options(t, "a"))
	other := start(t, options(t, "a", a))
	for _, each := range []*coordinator{a, other} {
		each.log.has(t, "level=ERROR")
		each.log.has(t, a.Addr().String())
		each.log.has(t, other.Addr().String())
	}
}

// TestWhoIsNotLetIn: what keeps strangers out, what both sides say of it, and that neither sees the other.
func TestWhoIsNotLetIn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sentence string
		change   func(*Options)
		says     string // of the stranger
		heard    string // by the others
	}{
		{
			"another key",
			func(o *Options) { o.Keys[0] = bytes.Repeat([]byte{7}, 32) },
			"it has other keys than this coordinator", "keys could decrypt",
		},
		{"no key", func(o *Options) { o.Keys = nil }, "it gossips with a key, this coordinator has none", "remote state is not encrypted"},
		{
			"another label",
			func(o *Options) {
				o.tune = func(c *memberlist.Config) { c.Label = "konsul" }
			},
			"it hangs up", `unacceptable label \"konsul\"`,
		},
		{
			"no label",
			func(o *Options) {
				o.tune = func(c *memberlist.Config) { c.Label = "" }
			},
			"it hangs up", `unacceptable label \"\"`,
		},
	} {
		a := start(t, options(t, "a"))
		opts := options(t, "stranger", a)
		tc.change(&opts)
		stranger := start(t, opts)
		stranger.log.has(t, tc.says)
		a.log.has(t, tc.heard)
		a.sees(t, aliveA)
		stranger.sees(t, "stranger alive meta of stranger")
		if lines := strings.Count(stranger.log.String(), "can be joined"); lines != 1 {
			t.Errorf("%s: it complains %d times:\n%s", tc.sentence, lines, stranger.log)
		}
	}
	clear := options(t, "clear")
	clear.Keys = nil
	c := start(t, clear)
	locked := start(t, options(t, "locked", c))
	locked.log.has(t, "it gossips in clear, this coordinator with a key")
	c.sees(t, "clear alive meta of clear")
	plain := options(t, "plain", c)
	plain.Keys = nil
	start(t, plain).sees(t, "clear alive meta of clear", "plain alive meta of plain")
}

func TestOneThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts := options(t, "b")
	opts.Join = []string{free.Addr().String()}
	_ = free.Close()
	b := start(t, opts)
	b.log.has(t, "not all coordinators to join can be joined")
	b.log.has(t, "connection refused")
	first := options(t, "a")
	first.Addr, first.Join = opts.Join[0], opts.Join // It may name itself.
	a := start(t, first)
	b.sees(t, aliveA, aliveB)
	b.log.has(t, "all coordinators to join are joined")
	if n := strings.Count(b.log.String(), "not all coordinators"); n != 1 {
		t.Errorf("that was said %d times", n)
	}
	if strings.Contains(a.log.String(), "not all") {
		t.Errorf("it cannot join itself:\n%s", a.log)
	}
}

// dials is before an address that is only not to be dialled.
const dials = "dial "

// wire is a coordinator's that can be cut: what is sent to an address that is cut off is lost.
type wire struct {
	memberlist.NodeAwareTransport
	off *sync.Map
}

func (w wire) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if _, off := w.off.Load(to.Addr); off {
		return time.Now(), nil
	}
	return w.NodeAwareTransport.WriteToAddress(b, to)
}

func (w wire) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	_, off := w.off.Load(to.Addr)
	_, deaf := w.off.Load(dials + to.Addr)
	if off || deaf {
		return nil, errors.New("it is cut off")
	}
	return w.NodeAwareTransport.DialAddressTimeout(to, timeout)
}

// asking is what names begin with that only ask.
const asking = "asks-"

// asks joins a coordinator to see whom its memberlist knows, and takes nothing from it.
type asks struct{ heard chan []string }

func (a asks) NotifyMerge(peers []*memberlist.Node) error {
	var names []string
	for _, p := range peers {
		names = append(names, p.Name)
	}
	select {
	case a.heard <- names:
	default:
	}
	return errors.New("only asking")
}

// forgets waits until a coordinator's memberlist knows nothing of another any more, not even that it died.
func (c *coordinator) forgets(t *testing.T, names ...string) {
	t.Helper()
	config := memberlist.DefaultLocalConfig()
	config.Name, config.BindAddr, config.BindPort, config.Label = fmt.Sprint(asking, c.Addr().Port()), "127.0.0.1", 0, label
	ask := asks{make(chan []string, 1)}
	config.SecretKey, config.LogOutput, config.Merge = keyOf(t), &book{}, ask
	list, err := memberlist.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = list.Shutdown() }()
	for deadline := time.After(patience); ; {
		_, _ = list.Join([]string{c.Addr().String()})
		var known []string
		select {
		case known = <-ask.heard:
			if !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(known, name) }) {
				return
			}
		default:
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatalf("it still knows %v", known)
		}
	}
}

// TestPartitionThatIsLongerThanMemory: a and b are cut off from c for longer than memberlist knows the dead. It would
// leave them apart; they are joined again.
func TestPartitionThatIsLongerThanMemory(t *testing.T) {
	t.Parallel()
	cut := map[string]*sync.Map{"a": {}, "b": {}, "c": {}}
	a, b, c := three(t, func(o *Options) {
		o.tune = func(c *memberlist.Config) {
			soon(c)
			c.GossipToTheDeadTime = 100 * time.Millisecond
		}
		o.wrap = func(below memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
			return wire{below, cut[o.Name]}
		}
	})
	for _, near := range []string{"a", "b"} {
		cut[near].Store(c.Addr().String(), true)
	}
	for _, far := range []*coordinator{a, b} {
		cut["c"].Store(far.Addr().String(), true)
	}
	for _, near := range []*coordinator{a, b} {
		near.sees(t, aliveA, aliveB, "c dead meta of c")
	}
	c.sees(t, "a dead meta of a", "b dead meta of b", aliveC)
	a.forgets(t, "c")
	b.forgets(t, "c")
	c.forgets(t, "a", "b")
	cut["c"].Store(dials+a.Addr().String(), true) // The only one of Join is of no help.
	cut["b"].Store(dials+a.Addr().String(), true)
	for _, wire := range cut {
		for _, each := range []*coordinator{a, b, c} {
			wire.Delete(each.Addr().String())
		}
	}
	for _, each := range []*coordinator{a, b, c} {
		each.sees(t, aliveA, aliveB, aliveC)
	}
}
