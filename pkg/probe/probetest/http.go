package probetest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// ListenHTTP starts a web server, over TLS if there is a config: then it speaks HTTP/2 to those who ask for
// it, unless the config says otherwise.
func ListenHTTP(at netip.AddrPort, config *tls.Config, handler http.Handler) (*Host, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler: handler, TLSConfig: config, ReadHeaderTimeout: time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), // Its clients are meant to be odd.
	}
	if config != nil && len(config.NextProtos) > 0 && !slices.Contains(config.NextProtos, "h2") {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // No HTTP/2.
	}
	h := &Host{addr: l.Addr().(*net.TCPAddr).AddrPort(), conns: map[net.Conn]bool{}}
	serve := func() error { return server.Serve(l) }
	if config != nil {
		serve = func() error { return server.ServeTLS(l, "", "") }
	}
	failed := make(chan error, 1)
	h.stopped.Go(func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
		close(failed)
	})
	h.close = func() error { return errors.Join(server.Close(), <-failed) }
	return h, nil
}
