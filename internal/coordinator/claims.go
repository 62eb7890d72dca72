package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/bus"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// claimsBucket is the name of the bucket that holds a pb.Claim for each agent's name.
	claimsBucket = "agents"
	// maxInstances bounds the processes that are remembered of an agent.
	maxInstances = 8
	// maxEpoch bounds the epoch that an agent may say that it has: there is always a next one.
	maxEpoch = 1 << 62
	// maxRaces bounds how often a change is tried again that somebody else was quicker with.
	maxRaces = 8
)

// errTaken says that a name is another agent's.
var errTaken = errors.New("the name is taken")

// process is what is known of a process that registers.
type process int

const (
	processSame process = iota // it was the last that did, or it has no name
	processNew                 // it was not there before, as far as is remembered
	processBack                // it was there before, and another one since
)

// claims are whose a name is, and who speaks for it now. What counts is the write that compares, never what was read.
type claims struct{ bucket access.Bucket }

// change changes the claim of a name, and returns it as it was written; change is called again if somebody else was
// quicker. After an error that is not change's own it may have been written or not.
func (c claims) change(ctx context.Context, name string, change func(*pb.Claim) error) (*pb.Claim, error) {
	for range maxRaces {
		v, err := c.bucket.Get(ctx, name)
		fresh := errors.Is(err, bus.ErrNoKey)
		if err != nil && !fresh {
			return nil, err
		}
		claim := &pb.Claim{}
		if err := proto.Unmarshal(v.Data, claim); err != nil {
			return nil, fmt.Errorf("the claim of %s: %w", name, err)
		}
		if err := change(claim); err != nil {
			return nil, err
		}
		err = c.write(ctx, name, claim, v.Revision)
		if err == nil || !errors.Is(err, bus.ErrExists) && !errors.Is(err, bus.ErrChanged) {
			return claim, err
		}
	}
	return nil, fmt.Errorf("the claim of %s: %w", name, bus.ErrChanged)
}

// write writes a claim over a revision; 0 is none.
func (c claims) write(ctx context.Context, name string, claim *pb.Claim, over uint64) error {
	data, err := proto.Marshal(claim)
	if err != nil {
		return fmt.Errorf("the claim of %s: %w", name, err)
	}
	if over == 0 {
		_, err = c.bucket.Create(ctx, name, data)
	} else {
		_, err = c.bucket.Update(ctx, name, data, over)
	}
	return err
}

// enrol gives a name to a key, or says errTaken. The same key and token may ask again. A token for this very name
// takes it from whoever has it.
func (c claims) enrol(ctx context.Context, name string, key []byte, token *pb.Token) error {
	_, err := c.change(ctx, name, func(claim *pb.Claim) error {
		same := bytes.Equal(claim.GetKey(), key) && claim.GetTokenId() == token.GetId()
		if len(claim.GetKey()) > 0 && !same && token.GetJoin().GetAgent() != name {
			return errTaken
		}
		claim.Key, claim.TokenId = key, token.GetId()
		return nil
	})
	return err
}

// session begins a session of an agent: its number is higher than all before. A spool goes on in the newest epoch, if
// that is the one it has, and gets one that never was otherwise; a spool that went back in time does too, since the log
// has numbers that it would use again. known is what the log has of the newest epoch that it knows of.
// who is what the claim knows of the process.
func (c claims) session(ctx context.Context, r *pb.RegisterRequest, known *pb.Delivery) (claim *pb.Claim, who process, err error) {
	claim, err = c.change(ctx, r.GetId(), func(claim *pb.Claim) error {
		claim.Session++
		newest := max(claim.GetEpoch(), known.GetEpoch())
		back := r.GetEpoch() == known.GetEpoch() && r.GetNext() > 0 && r.GetNext() <= known.GetHighest()
		if r.GetEpoch() == 0 || r.GetEpoch() != newest || back {
			newest = max(newest, min(r.GetEpoch(), maxEpoch)) + 1
		}
		claim.Epoch = newest
		switch at := slices.Index(claim.GetInstances(), r.GetInstance()); {
		case r.GetInstance() == "", at >= 0 && at == len(claim.GetInstances())-1:
			who = processSame
		case at < 0:
			who = processNew
		default:
			who = processBack
		}
		claim.Instances = append(slices.DeleteFunc(claim.GetInstances(), func(i string) bool { return i == r.GetInstance() }), r.GetInstance())
		claim.Instances = claim.Instances[max(0, len(claim.Instances)-maxInstances):]
		return nil
	})
	return claim, who, err
}

// current is the claim of a name, as far as it is known: a newer one may be on its way.
func (c claims) current(ctx context.Context, name string) (*pb.Claim, error) {
	claim := &pb.Claim{}
	v, err := c.bucket.Get(ctx, name)
	if errors.Is(err, bus.ErrNoKey) {
		return claim, nil
	}
	if err == nil {
		err = proto.Unmarshal(v.Data, claim)
	}
	if err != nil {
		return nil, fmt.Errorf("the claim of %s: %w", name, err)
	}
	return claim, nil
}
