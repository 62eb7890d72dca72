package chaos

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

const (
	// racers is how many clients want each token, and each session.
	racers = 4
	// races is how many tokens there are, and agents.
	races = 3
	// raceRegion is where the agents that are raced for say that they stand: nobody asks them.
	raceRegion = "race"
	// racedKills is how often a coordinator is killed until a call is cut off by it.
	racedKills = 5
	// checking bounds the search for an order of all calls.
	checking = 30 * time.Second
)

// decisions are the calls that decided something once.
type decisions struct {
	mu               sync.Mutex
	tokens, sessions []history.Call
	names            int
	clients          int
}

func (d *decisions) add(list *[]history.Call, c history.Call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*list = append(*list, c)
}

// client is a number for a new client.
func (d *decisions) client() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients++
	return d.clients
}

// name is a new agent's.
func (d *decisions) name() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names++
	return fmt.Sprintf("race-%d", d.names)
}

// unanswered is how many calls of all have no answer.
func (d *decisions) unanswered() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range slices.Concat(d.tokens, d.sessions) {
		if c.Outcome == history.Unknown {
			n++
		}
	}
	return n
}

// check says what is wrong with them.
func (d *decisions) check() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append(history.Tokens(d.tokens, checking), history.Sessions(d.sessions, checking)...)
}

// raced has many clients want the same tokens and the same sessions, while the coordinator is killed.
func raced(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	c := w.anyCoordinator(r)
	names := make([]string, races)
	tokens := make([]string, races)
	for i := range names {
		names[i] = w.decisions.name()
		if !w.tls {
			continue
		}
		var err error
		if tokens[i], err = w.joinToken(ctx, names[i], raceRegion); err != nil {
			return wound{}, err
		}
	}
	return wound{struck: func(ctx context.Context) (string, error) {
		racing, stop := context.WithCancel(ctx)
		defer stop()
		var wg sync.WaitGroup
		for i, name := range names {
			for range racers {
				wg.Go(func() { w.race(racing, name, tokens[i]) })
			}
		}
		var err error
		before, kills := w.decisions.unanswered(), 0
		for err == nil && w.decisions.unanswered() == before && kills < racedKills { // a death between two calls cuts none off
			kills++
			err = passing(ctx, time.Duration(r.IntN(100))*time.Millisecond)
			if err == nil {
				err = c.kill()
			}
			if err == nil {
				err = errors.Join(w.bring(ctx, c), passing(ctx, 2*time.Second))
			}
		}
		cut := w.decisions.unanswered() - before // so far: the end of the race is about to cut off some
		stop()
		wg.Wait()
		if err == nil && cut == 0 {
			err = errors.New("no call was cut off")
		}
		return fmt.Sprintf("%s was killed, %d times, which cut off %d calls", c.name, kills, cut), err
	}}, nil
}

// race is one client: it wants to be an agent, and if it is, it registers again and again.
func (w *world) race(ctx context.Context, name, token string) {
	client := w.decisions.client()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return
	}
	option := grpc.WithTransportCredentials(insecure.NewCredentials())
	if w.tls {
		chain := w.enrol(ctx, history.Call{Client: client, Object: token, Key: fmt.Sprint(client)}, key)
		if chain == nil {
			return // somebody else was first
		}
		option = grpc.WithTransportCredentials(credentials.NewTLS(w.trusting(&tls.Certificate{Certificate: chain, PrivateKey: key})))
	}
	conn, err := w.dial(option)
	if err != nil {
		return
	}
	defer conn.Close()
	for epoch := uint64(0); ctx.Err() == nil; {
		call := history.Call{Client: client, Object: name, AskedEpoch: epoch, Begin: time.Now()}
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		r, err := register(short, conn, name, epoch)
		cancel()
		call.End = time.Now()
		if err == nil {
			call.Outcome, call.Epoch, call.Session = history.Done, r.GetEpoch(), r.GetSession()
			epoch = r.GetEpoch()
		}
		if client%2 == 0 {
			epoch = 0 // half of them come with a new spool each time
		}
		w.decisions.add(&w.decisions.sessions, call)
		_ = passing(ctx, 20*time.Millisecond)
	}
}

// enrol asks for a certificate until there is an answer, nil if that is no.
func (w *world) enrol(ctx context.Context, call history.Call, key *ecdsa.PrivateKey) [][]byte {
	request, err := x509.CreateCertificateRequest(cryptorand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil
	}
	conn, err := w.dial(grpc.WithTransportCredentials(credentials.NewTLS(w.trusting(nil))))
	if err != nil {
		return nil
	}
	defer conn.Close()
	for ctx.Err() == nil {
		call.Begin, call.Outcome = time.Now(), history.Unknown
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		r, err := pb.NewRegistrationServiceClient(conn).Enroll(short, &pb.EnrollRequest{Token: call.Object, CertificateRequest: request})
		cancel()
		call.End = time.Now()
		switch status.Code(err) {
		case codes.OK:
			call.Outcome = history.Done
		case codes.PermissionDenied, codes.AlreadyExists:
			call.Outcome = history.Refused
		default: // it may have happened
		}
		w.decisions.add(&w.decisions.tokens, call)
		if call.Outcome != history.Unknown {
			return r.GetCertificate().GetChain()
		}
		_ = passing(ctx, 50*time.Millisecond)
	}
	return nil
}

// trusting is how to connect to the coordinator, with a certificate of one's own or none. Whom to trust is read
// anew for each connection: authorities change.
func (w *world) trusting(mine *tls.Certificate) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // VerifyConnection does
		VerifyConnection: func(state tls.ConnectionState) error {
			authority, err := w.secret("ca.pem")
			if err != nil {
				return err
			}
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(authority)
			for _, c := range w.coordinators { // crypto/tls does not tell which address was dialed
				if _, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: c.ip, Roots: pool}); err == nil {
					return nil
				}
			}
			return err
		},
	}
	if mine != nil {
		config.Certificates = []tls.Certificate{*mine}
	}
	return config
}

// joinToken asks for a token for one agent.
func (w *world) joinToken(ctx context.Context, name, where string) (string, error) {
	conn, err := w.client()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	r, err := pb.NewAccessServiceClient(conn).CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{
		Join: &pb.JoinToken{Agent: name, Vantage: &pb.Vantage{Region: where}},
	}, grpc.WaitForReady(true))
	return r.GetSecret(), err
}
