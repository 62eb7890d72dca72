package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

const (
	// hostileIP is where hostile agents and a hostile coordinator are, captiveIP the agent that meets that.
	hostileIP, captiveIP = "10.77.5.2", "10.77.6.2"
	// evilPrefix begins the names of hostile agents.
	evilPrefix = "evil-"
	// hostileFor is how long each does its worst.
	hostileFor = "8s"
	// cages is how many animals of the zoo are met at once.
	cages = 4
	// tries is how often a hostile program is started that could not do its worst: its coordinator may have been dead.
	tries = 8
)

// hostileFaults are targets, agents and coordinators that mean harm, beside all other faults.
func hostileFaults() []fault {
	all := []fault{{name: "F23 zoo of hostile targets", inject: zoo, lane: hostileLane}}
	if *insecurely { // anybody is let in under any name there, and says so
		return all
	}
	for _, group := range []struct {
		what  string
		modes []string
	}{
		{"forge", []string{"equivocate", "replay", "spoof", "same-number", "scattered", "invent"}},
		{"flood", []string{"unasked", "giant", "gaps", "deaf"}},
		{"pretend", []string{"spoof-hello", "new-session", "clone", "subjects"}},
		{"hold out", []string{"idle", "slow", "loris"}},
	} {
		all = append(all, fault{name: "F24 hostile agents " + group.what, lane: hostileLane, inject: func(_ context.Context, w *world, _ *rand.Rand) (wound, error) {
			return wound{struck: func(ctx context.Context) (string, error) { return w.besiege(ctx, group.modes) }}, nil
		}})
	}
	return append(all, fault{name: "F24 hostile coordinator", inject: stolen, lane: hostileLane, trust: true})
}

// zoo has every animal of the zoo measured by every agent, again until one has met it.
func zoo(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	animals := probetest.Zoo()
	r.Shuffle(len(animals), func(i, j int) { animals[i], animals[j] = animals[j], animals[i] })
	servers := make([]probetest.Server, 0, len(animals))
	shut := func(context.Context) (err error) {
		for _, s := range servers {
			err = errors.Join(err, s.Close())
		}
		return err
	}
	for i, animal := range animals {
		var s probetest.Server
		err := w.targets.Do(func() (err error) {
			s, err = animal.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 10, byte(1 + i)}), 0))
			return err
		})
		if err != nil {
			return wound{}, errors.Join(fmt.Errorf("%s: %w", animal.Name, err), shut(ctx))
		}
		servers = append(servers, s)
	}
	return wound{heal: shut, struck: func(ctx context.Context) (string, error) {
		began := time.Now()
		met := make([]int, len(animals))
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(cages)
		for i, animal := range animals {
			g.Go(func() (err error) {
				if met[i], err = w.meet(ctx, animal.Spec(servers[i].Addr())); err != nil {
					err = fmt.Errorf("%s: %w", animal.Name, err)
				}
				return err
			})
		}
		err := g.Wait()
		results := 0
		for _, n := range met {
			results += n
		}
		return fmt.Sprintf("%d hostile targets were measured, with %d results, in %.1f s", len(animals), results, time.Since(began).Seconds()), err
	}}, nil
}

// meet asks all agents about a target until there is a result, and returns how many there are.
func (w *world) meet(ctx context.Context, spec *pb.Spec) (met int, err error) {
	err = eventually(ctx, "an agent to meet it", func(ctx context.Context) error {
		if !w.load.begin() {
			return errors.New("nobody may ask now")
		}
		id := w.load.measure(ctx, spec)
		if id == "" {
			return errors.New("the coordinator does not answer")
		}
		facts, err := results(ctx, pb.NewMeasurementServiceClient(w.load.conn), id)
		if met = len(facts); err == nil && met == 0 {
			err = errors.New("no agent answers")
		}
		return err
	})
	return met, err
}

// deed is what a hostile agent says that it did.
type deed struct {
	Registered, Jobs, Sent, Results, Acked, Refused, Overheard, Opened int

	Errors map[string]int
}

// refusals is how often it was told no.
func (d deed) refusals() int {
	n := d.Refused
	for _, times := range d.Errors {
		n += times
	}
	return n
}

// happened tells whether a hostile agent did what its mode is about.
func (d deed) happened(mode string) bool {
	switch mode {
	case "equivocate", "replay", "spoof", "same-number", "scattered", "invent":
		return d.Jobs > 0 && d.Results > 0
	case "unasked", "giant", "gaps", "deaf":
		return d.Sent > 0
	case "spoof-hello", "new-session":
		return d.Registered > 0 && d.refusals() > 0
	case "clone":
		return d.Registered > 2
	case "subjects":
		return d.Refused > 15
	case "loris":
		return d.Opened > 100
	case "idle":
		return d.Jobs > 0
	}
	return d.Registered > 0
}

// besiege has hostile agents do their worst at once, where the load asks them as it asks all others.
func (w *world) besiege(ctx context.Context, modes []string) (string, error) {
	deeds := make([]deed, len(modes))
	var g errgroup.Group
	for i, mode := range modes {
		g.Go(func() (err error) {
			deeds[i], err = w.evil(ctx, mode)
			return err
		})
	}
	err := g.Wait()
	sent, taken, refused := 0, 0, 0
	for _, d := range deeds {
		sent, taken, refused = sent+d.Sent, taken+d.Results, refused+d.refusals()
	}
	if err == nil && refused == 0 && sent > 0 {
		refused, err = w.audited(ctx)
	}
	return fmt.Sprintf("%d hostile agents (%s) sent %d batches of %d results, and were told no %d times", len(modes), strings.Join(modes, ", "), sent, taken, refused), err
}

// audited is how many audit events there are about hostile agents.
func (w *world) audited(ctx context.Context) (n int, err error) {
	list, err := pb.NewAccessServiceClient(w.load.conn).ListAuditEvents(ctx, &pb.ListAuditEventsRequest{PageSize: 1000}, grpc.WaitForReady(true))
	for _, e := range list.GetEvents() {
		if strings.HasPrefix(e.GetAgent(), evilPrefix) {
			n++
		}
	}
	return n, err
}

// evil starts a hostile agent, again if it could not do what its mode is about, and returns what it did.
func (w *world) evil(ctx context.Context, mode string) (d deed, err error) {
	for range tries {
		if d, err = w.evilOnce(ctx, mode); err == nil && d.happened(mode) {
			switch {
			case d.Overheard > 0:
				return d, fmt.Errorf("%s: it overheard %d messages", mode, d.Overheard)
			case mode == "spoof-hello" && d.Acked > 0:
				return d, fmt.Errorf("%s: %d results were taken in another agent's name", mode, d.Acked)
			}
			return d, nil
		}
	}
	return d, errors.Join(fmt.Errorf("%s: it could not do its worst: %+v", mode, d), err)
}

func (w *world) evilOnce(ctx context.Context, mode string) (d deed, err error) {
	name := fmt.Sprintf("%s%s-%d", evilPrefix, mode, w.evils.Add(1))
	token, err := w.joinToken(ctx, name, region)
	if err != nil {
		return d, err
	}
	p := &program{w: w, name: name, where: w.hostile, args: func() []string {
		// The machine is small: who floods shall not take it from the others.
		return []string{
			"nice", "-n", "10", filepath.Join(w.bin, "hostile-agent"), "--coordinator", w.coordinator.grpcAddr(), "--id", name, "--mode", mode, "--for", hostileFor,
			"--data-dir", filepath.Join(w.dir, name), "--join", token,
		}
	}}
	return d, w.told(ctx, p, &d)
}

// told runs a hostile program to its end and reads what it says that it did.
func (w *world) told(ctx context.Context, p *program, did any) error {
	if err := p.start(ctx); err != nil {
		return err
	}
	_, done := p.process()
	select {
	case <-done:
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s does not end", p.name), p.kill())
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.kill())
	}
	said, err := os.ReadFile(p.log())
	if err != nil {
		return err
	}
	at := max(0, bytes.LastIndexByte(bytes.TrimSpace(said), '\n'))
	if err := json.Unmarshal(said[at:], did); err != nil {
		return fmt.Errorf("%s said %q: %w", p.name, tail(p.log()), err)
	}
	return nil
}

// theft is what a hostile coordinator says that it did.
type theft struct {
	Registered, Connected, Jobs, Said, Accepted, Results int

	Refusals map[string]int
}

// refusals is how often the agent said no.
func (t theft) refusals() (n int) {
	for _, times := range t.Refusals {
		n += times
	}
	return n
}

// stolen lets one more agent in, and puts a hostile coordinator with the authority's key in its way, in a few modes. The
// agent has to live, to send no packet where none may go, and to work for its own coordinator afterwards, where nothing of
// what it was asked meanwhile may be.
func stolen(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	n := w.evils.Add(1)
	id := fmt.Sprintf("captive-%d", n)
	captive := &agent{id: id, ip: captiveIP, data: filepath.Join(w.dir, id)}
	captive.program = &program{w: w, name: id, where: w.captive, args: func() []string { return w.agentArgs(captive) }}
	var err error
	if captive.token, err = w.joinToken(ctx, id, region); err != nil {
		return wound{}, err
	}
	w.lives.adopt(captive)
	began := time.Now()
	if err := captive.start(ctx); err != nil {
		return wound{}, err
	}
	if _, _, err := w.recover(ctx, began, []*agent{captive}); err != nil {
		return wound{}, err
	}
	modes := []string{"flood", "malformed", "huge", "foreign", "cancel", "acks", "retry-after", "go-away", "epochs", "bomb", "endless-line", "dismissal", "giant-registration"}
	r.Shuffle(len(modes), func(i, j int) { modes[i], modes[j] = modes[j], modes[i] })
	modes = append(modes[:2], "forbidden")
	return wound{
		struck: func(ctx context.Context) (string, error) {
			began := time.Now()
			if err := w.divert(ctx, "stolen", []*agent{captive}, func(port string) string { return "dnat ip to " + hostileIP + ":" + port }); err != nil {
				return "", err
			}
			jobs, refused, err := w.rob(ctx, n, modes)
			err = errors.Join(err, w.lift(context.WithoutCancel(ctx), "stolen"))
			captive.taken(began, time.Now())
			if err == nil && !captive.alive() {
				err = fmt.Errorf("%s is dead", id)
			}
			if err == nil {
				_, _, err = w.recover(ctx, time.Now(), []*agent{captive})
			}
			return fmt.Sprintf("a coordinator with the stolen key (%s) sent %s %d jobs, of which it refused %d; then it worked for its own again",
				strings.Join(modes, ", "), id, jobs, refused), err
		},
		heal: func(context.Context) error { return captive.kill() },
	}, nil
}

// rob runs a hostile coordinator in modes, one after the other.
func (w *world) rob(ctx context.Context, n int64, modes []string) (jobs, refused int, err error) {
	for _, mode := range modes {
		did, err := w.robIn(ctx, n, mode)
		if err != nil {
			return jobs, refused, err
		}
		jobs, refused = jobs+did.Jobs, refused+did.refusals()
	}
	return jobs, refused, nil
}

// robIn runs it in one mode, again if nothing came of it: an agent to which no server of NATS has spoken in time may stay
// away from it for half a minute.
func (w *world) robIn(ctx context.Context, n int64, mode string) (did theft, err error) {
	for range tries {
		p := &program{w: w, name: fmt.Sprintf("thief-%d-%s", n, mode), where: w.hostile, args: func() []string {
			return []string{
				"nice", "-n", "10", filepath.Join(w.bin, "hostile-coordinator"), "--grpc-addr", hostileIP + ":7700", "--nats-addr", hostileIP + ":7702",
				"--ca", filepath.Join(w.coordinator.dataDir(), "ca.pem"), "--key", filepath.Join(w.coordinator.dataDir(), "ca.key"), "--mode", mode, "--for", "3s", "--rate", "2000",
				"--target", fmt.Sprintf("198.18.20.%d:443", 1+n%250), "--victims", "10.66.0.1,169.254.169.254",
			}
		}}
		did = theft{}
		if err := w.told(ctx, p, &did); err != nil {
			return did, err
		}
		if did.Registered > 0 && (mode != "forbidden" || did.refusals() >= 10) {
			return did, nil
		}
	}
	return did, fmt.Errorf("%s: the attack did not happen: %+v", mode, did)
}

// taken notes that a thief stood in the coordinator's place.
func (a *agent) taken(first, last time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.captive = append(a.captive, history.Span{First: first, Last: last})
}

// foreign tells whether a measurement is none of the coordinator's, by its name.
func foreign(measurement string) bool { return len(measurement) != 26 }
