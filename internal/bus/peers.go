package bus

import (
	"fmt"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// peersSubject is where coordinators talk to each other, in the log's account, which nobody else has.
const peersSubject = "coordinators"

// Peers is what coordinators tell each other beside the log: hints, of which any may be lost.
type Peers struct{ nc *nats.Conn }

// OpenPeers hands everything that a coordinator says to hear, one at a time, what this one says included. What cannot be
// read, as a newer program's, is left out.
func OpenPeers(s Server, hear func(*pb.CoordinatorMessage)) (*Peers, error) {
	nc, err := connect(s, LogUser)
	if err != nil {
		return nil, err
	}
	_, err = nc.Subscribe(peersSubject, func(m *nats.Msg) {
		var message pb.CoordinatorMessage
		if proto.Unmarshal(m.Data, &message) == nil {
			hear(&message)
		}
	})
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	return &Peers{nc}, nil
}

// Say tells all coordinators something.
func (p *Peers) Say(message *pb.CoordinatorMessage) error {
	data, err := proto.Marshal(message)
	if err == nil {
		err = p.nc.Publish(peersSubject, data)
	}
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	return nil
}

// Close closes the connection.
func (p *Peers) Close() { p.nc.Close() }
