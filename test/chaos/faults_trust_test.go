package chaos

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// trustFaults are changes of whom to trust while everything works. Without TLS there are none.
func trustFaults() []fault {
	if *insecurely {
		return nil
	}
	return []fault{
		{name: "F25 another authority", inject: rotated, trust: true},
		{name: "F25 agent revoked", inject: revoked},
	}
}

// certificate is an agent's newest, as it is on its disk.
func (a *agent) certificate() (*x509.Certificate, error) {
	data, err := os.ReadFile(filepath.Join(a.data, "identity", "agent.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("the certificate of %s is no PEM", a.id)
	}
	return x509.ParseCertificate(block.Bytes)
}

// trusts looks for an authority in what an agent has on its disk.
func (a *agent) trusts(authority *x509.Certificate) error {
	rest, err := os.ReadFile(filepath.Join(a.data, "identity", "ca.pem"))
	for block := (*pem.Block)(nil); err == nil; {
		if block, rest = pem.Decode(rest); block == nil {
			return errors.New("it does not")
		}
		if bytes.Equal(block.Bytes, authority.Raw) {
			return nil
		}
	}
	return err
}

// rotated has a new authority sign, and drops the old one when every agent has a certificate of the new one.
func rotated(ctx context.Context, w *world, _ *rand.Rand) (wound, error) {
	service := pb.NewCoordinatorServiceClient(w.load.conn)
	list, err := service.ListAuthorities(ctx, &pb.ListAuthoritiesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return wound{}, err
	}
	old := list.GetAuthorities()[0].GetPin()
	added, err := service.AddAuthority(ctx, &pb.AddAuthorityRequest{})
	if err != nil {
		return wound{}, err
	}
	block, _ := pem.Decode([]byte(added.GetAuthority().GetCertificate()))
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return wound{}, err
	}
	for _, a := range w.agents { // who does not know it would be shut out by its use
		if err := eventually(ctx, a.id+" to trust the new authority", func(context.Context) error { return a.trusts(authority) }); err != nil {
			return wound{}, err
		}
	}
	if err := w.whole(ctx); err != nil { // all coordinators go by it
		return wound{}, err
	}
	began := time.Now()
	if _, err := service.UseAuthority(ctx, &pb.UseAuthorityRequest{Pin: added.GetAuthority().GetPin(), Force: true}); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			for _, a := range w.agents {
				if err := eventually(ctx, a.id+" to have a certificate of the new authority", func(context.Context) error {
					mine, err := a.certificate()
					if err == nil {
						err = mine.CheckSignatureFrom(authority)
					}
					return err
				}); err != nil {
					return "", err
				}
			}
			renewed := time.Since(began)
			if err := w.whole(ctx); err != nil {
				return "", err
			}
			// Clones and agents that were raced for have nothing but what the old one signed.
			_, err := service.DropAuthority(ctx, &pb.DropAuthorityRequest{Pin: old, Force: true})
			w.herds++ // the old herd would have to enrol again
			return fmt.Sprintf("all %d agents had a certificate of the new authority after %.1f s; the old one was dropped", len(w.agents), renewed.Seconds()), err
		},
	}, nil
}

// shutOut is within what time an agent that was revoked has to be out.
const shutOut = 5 * time.Second

// revoked lets one more agent in, and revokes it while it works.
func revoked(ctx context.Context, w *world, _ *rand.Rand) (wound, error) {
	id := fmt.Sprintf("victim-%d", len(w.lives.clones()))
	victim := &agent{id: id, ip: spareIP, data: filepath.Join(w.dir, id)}
	victim.program = &program{w: w, name: id, where: w.spare, args: func() []string { return w.agentArgs(victim) }}
	var err error
	if victim.token, err = w.joinToken(ctx, id, region); err != nil {
		return wound{}, err
	}
	w.lives.adopt(victim)
	began := time.Now()
	if err := victim.start(ctx); err != nil {
		return wound{}, err
	}
	if _, _, err := w.recover(ctx, began, []*agent{victim}); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if _, err := pb.NewFleetServiceClient(w.load.conn).RevokeAgent(ctx, &pb.RevokeAgentRequest{Id: id}, grpc.WaitForReady(true)); err != nil {
				return "", err
			}
			at := time.Now()
			if err := errors.Join(passing(ctx, 2*shutOut), w.lives.catchUp()); err != nil {
				return "", err
			}
			before, _ := w.lives.last(id, chaos.Acked)
			if took := before.At().Sub(at); took > shutOut {
				return "", fmt.Errorf("something of %s was acknowledged %v after it was revoked", id, took)
			}
			// What it had accepted before may take until its deadline.
			if late := w.lives.asked(victim.program, at.Add(shutOut)); late > 0 {
				return "", fmt.Errorf("%s was asked %d times later than %v after it was revoked", id, late, shutOut)
			}
			return fmt.Sprintf("%s was revoked; its last acknowledgement came %.1f s after that (negative: before)", id, before.At().Sub(at).Seconds()), nil
		},
		heal: func(context.Context) error { return victim.kill() },
	}, nil
}
