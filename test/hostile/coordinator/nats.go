package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// This is NATS as far as an agent speaks it, by hand: a real server would not say what is to be said here.
// https://docs.nats.io/reference/reference-protocols/nats-protocol

// replies is where agents answer.
const replies = "_INBOX.hostile"

// peer is an agent that is connected.
type peer struct {
	conn  net.Conn
	agent string
	jobs  string // What jobs are sent by: the number of its subscription.
	ends  string // The same of cancels.

	mu  sync.Mutex
	out *bufio.Writer
}

// acceptNATS takes agents until ctx ends.
func (h *hostile) acceptNATS(ctx context.Context, l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			defer conn.Close() //nolint:errcheck // it is over
			h.failed(h.converse(ctx, conn))
		})
	}
}

// converse lets an agent subscribe, and then attacks it.
func (h *hostile) converse(ctx context.Context, conn net.Conn) error {
	h.note(func(r *report) { r.Connected++ })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &peer{conn: conn, out: bufio.NewWriterSize(conn, 64<<10)}
	info := `{"server_id":"hostile","server_name":"hostile","version":"2.15.2","proto":1,"headers":true,"max_payload":8388608,"client_id":1` + h.info() + `}`
	if err := p.write("INFO %s\r\n", info); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		begins, err := h.heard(p, in, strings.Fields(line))
		if err != nil {
			return err
		}
		if begins && h.mode.attack != nil {
			wg.Go(func() { h.failed(h.mode.attack(ctx, h, p)) })
		}
	}
}

// heard answers a line, and says whether the agent has now subscribed all that it will.
func (h *hostile) heard(p *peer, in *bufio.Reader, words []string) (begins bool, err error) {
	if len(words) == 0 {
		return false, nil
	}
	switch strings.ToUpper(words[0]) {
	case "PING":
		return false, p.write("PONG\r\n")
	case "SUB":
		if agent, ok := strings.CutPrefix(words[1], "jobs."); ok {
			p.agent, p.jobs = agent, words[len(words)-1]
		}
		if _, ok := strings.CutPrefix(words[1], "cancel."); ok {
			p.ends = words[len(words)-1]
			return true, nil
		}
	case "PUB", "HPUB":
		size, err := strconv.Atoi(words[len(words)-1])
		if err != nil || size > 64<<20 {
			return false, fmt.Errorf("the agent sent %q", words)
		}
		payload := make([]byte, size+2)
		if _, err := io.ReadFull(in, payload); err != nil {
			return false, err
		}
		if strings.HasPrefix(words[1], replies) {
			h.answered(payload[:size])
		}
	}
	return false, nil
}

// answered notes an agent's answer to a job.
func (h *hostile) answered(data []byte) {
	var reply pb.JobReply
	err := proto.Unmarshal(data, &reply)
	h.note(func(r *report) {
		switch {
		case err != nil:
			r.Refusals["unreadable: "+err.Error()]++
		case reply.GetFailure() == pb.Failure_FAILURE_NONE:
			r.Accepted++
		case len(r.Refusals) < 200:
			r.Refusals[reply.GetDetail()]++
		}
	})
}

// write writes a line at once.
func (p *peer) write(format string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintf(p.out, format, args...); err != nil {
		return err
	}
	return p.out.Flush()
}

// send sends a message of any bytes as a job, or as a cancel.
func (h *hostile) send(p *peer, sid string, data []byte) error {
	subject := "jobs." + p.agent
	if sid == p.ends {
		subject = "cancel." + p.agent
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintf(p.out, "MSG %s %s %s.%d %d\r\n%s\r\n", subject, sid, replies, len(data), len(data), data)
	if err == nil && p.out.Buffered() > 32<<10 {
		err = p.out.Flush()
	}
	h.note(func(r *report) {
		r.Jobs++
		r.Bytes += int64(len(data))
	})
	return err
}

// flush sends what is still here.
func (p *peer) flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Flush()
}
