package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// foreign is what an agent has no business with: other agents' jobs and beats, the log, the server itself.
var foreign = []string{
	"PUB jobs.honest 1\r\nx\r\n", "PUB beats.honest 1\r\nx\r\n", "PUB cancel.honest 1\r\nx\r\n", "PUB _INBOX.x 1\r\nx\r\n",
	"PUB $JS.API.STREAM.NAMES 0\r\n\r\n", "PUB $JS.API.STREAM.DELETE.LOG 0\r\n\r\n", "PUB $JS.API.STREAM.PURGE.LOG 0\r\n\r\n",
	"PUB $JS.API.STREAM.MSG.GET.LOG 11\r\n{\"seq\": 1  }\r\n", "PUB $JS.API.ACCOUNT.PURGE.x 0\r\n\r\n", "PUB log.x 1\r\nx\r\n", "PUB $KV.agents.honest 1\r\nx\r\n",
	"PUB $SYS.REQ.SERVER.PING 0\r\n\r\n", "PUB $SYS.REQ.SERVER.PING.CONNZ 0\r\n\r\n",
	"SUB jobs.honest 1\r\n", "SUB jobs.* 2\r\n", "SUB > 3\r\n", "SUB _INBOX.> 4\r\n", "SUB $SYS.> 5\r\n", "SUB $JS.> 6\r\n", "SUB $KV.> 7\r\n", "SUB beats.* 8\r\n",
}

// meddle speaks NATS by hand, tries all of that again and again, and counts what is refused and what it hears.
func (h *hostile) meddle(ctx context.Context, addr string, secure *tls.Config) {
	for ctx.Err() == nil {
		h.failed(h.meddleOnce(ctx, addr, secure))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

func (h *hostile) meddleOnce(ctx context.Context, addr string, secure *tls.Config) error {
	conn, err := (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	text := fmt.Sprintf("CONNECT {\"user\":%q,\"pass\":\"\",\"verbose\":false,\"headers\":true}\r\n%sPING\r\n", h.id, strings.Join(foreign, ""))
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for in := bufio.NewScanner(conn); in.Scan(); {
		h.note(func(n *report) {
			switch line := in.Text(); {
			case strings.HasPrefix(line, "-ERR 'Permissions Violation"):
				n.Refused++
			case strings.HasPrefix(line, "MSG "):
				n.Overheard++
			}
		})
	}
	return nil
}

// loris opens connections that say a byte now and then, and streams that say nothing.
func loris(ctx context.Context, h *hostile, _ pb.ResultService_ReportClient) error {
	for range 200 {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", h.coordinator)
		if err != nil {
			h.failed(err)
			continue
		}
		h.note(func(n *report) { n.Opened++ })
		go drip(ctx, conn)
	}
	<-ctx.Done()
	return ctx.Err()
}

// drip says what begins like a TLS handshake, a byte a second, until somebody hangs up.
func drip(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for _, b := range append([]byte{22, 3, 1, 2, 0}, make([]byte, 1000)...) {
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
