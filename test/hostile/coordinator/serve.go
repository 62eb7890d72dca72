package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// serve listens, and attacks whoever comes, until ctx ends.
func (h *hostile) serve(ctx context.Context) error {
	secure, err := h.tls()
	if err != nil {
		return err
	}
	rpc, err := new(net.ListenConfig).Listen(ctx, "tcp", h.grpc)
	if err != nil {
		return err
	}
	jobs, err := new(net.ListenConfig).Listen(ctx, "tcp", h.nats)
	if err != nil {
		return errors.Join(err, rpc.Close())
	}
	var options []grpc.ServerOption
	if secure != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
		jobs = tls.NewListener(jobs, secure)
	}
	server := grpc.NewServer(options...)
	pb.RegisterRegistrationServiceServer(server, registration{h: h})
	pb.RegisterResultServiceServer(server, results{h: h})
	var wg sync.WaitGroup
	wg.Go(func() { h.failed(server.Serve(rpc)) })
	wg.Go(func() { h.acceptNATS(ctx, jobs) })
	<-ctx.Done()
	server.Stop()
	_ = jobs.Close()
	wg.Wait()
	return nil
}

// tls makes a coordinator's certificate by the stolen authority. Nil: there is none.
func (h *hostile) tls() (*tls.Config, error) {
	if h.ca == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(h.ca, h.key)
	if err != nil {
		return nil, err
	}
	authority, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "elsewhere", Path: "/coordinator/stolen"}},
	}
	for _, addr := range []string{h.grpc, h.nats} {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(host))
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), pair.PrivateKey)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ClientAuth: tls.RequestClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, nil
}

// authorities are those that agents trust already.
func (h *hostile) authorities() (ders [][]byte) {
	data, _ := os.ReadFile(h.ca) // without TLS there are none
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		ders = append(ders, block.Bytes)
	}
	return ders
}

// registration is pb.RegistrationService.
type registration struct {
	pb.UnimplementedRegistrationServiceServer

	h *hostile
}

// Register implements pb.RegistrationServiceServer.
func (s registration) Register(_ context.Context, r *pb.RegisterRequest) (*pb.RegisterResponse, error) {
	time.AfterFunc(soon, s.h.begin)
	_, port, _ := net.SplitHostPort(s.h.nats)
	out := &pb.RegisterResponse{
		Id: r.GetId(), Vantage: r.GetVantage(), NatsAddresses: []string{":" + port}, Credential: "x",
		BeatInterval: durationpb.New(time.Second), Epoch: max(r.GetEpoch(), 1), Authorities: s.h.authorities(),
	}
	s.h.note(func(n *report) {
		n.Registered++
		out.Session = uint64(n.Registered)
	})
	if f := s.h.mode.register; f != nil {
		f(s.h, r, out)
	}
	s.h.note(func(n *report) {
		if len(n.Epochs) < 100 {
			n.Epochs, n.Sessions = append(n.Epochs, r.GetEpoch()), append(n.Sessions, out.GetSession())
		}
	})
	return out, nil
}

// results is pb.ResultService.
type results struct {
	pb.UnimplementedResultServiceServer

	h *hostile
}

// Report implements pb.ResultServiceServer.
func (s results) Report(stream pb.ResultService_ReportServer) error {
	s.h.note(func(r *report) { r.Streams++ })
	if f := s.h.mode.stream; f != nil {
		return f(s.h, stream)
	}
	return s.h.keep(stream)
}

// keep takes results as a coordinator does, but for keeping them.
func (h *hostile) keep(stream pb.ResultService_ReportServer) error {
	for {
		in, err := stream.Recv()
		if err != nil {
			return err
		}
		var ranges []*pb.SeqRange
		for _, r := range in.GetBatch().GetResults() {
			ranges = append(ranges, &pb.SeqRange{First: r.GetSeq(), Last: r.GetSeq()})
		}
		for _, g := range in.GetBatch().GetGaps() {
			ranges = append(ranges, &pb.SeqRange{First: g.GetFirst(), Last: g.GetLast()})
		}
		h.note(func(r *report) { r.Results += len(in.GetBatch().GetResults()) })
		if len(ranges) == 0 {
			continue
		}
		if err := h.say(stream, &pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: &pb.Ack{Ranges: ranges}}}); err != nil {
			return err
		}
	}
}

// say sends on a result stream, and counts.
func (h *hostile) say(stream pb.ResultService_ReportServer, out *pb.ReportResponse) error {
	if err := stream.Send(out); err != nil {
		return err
	}
	h.note(func(r *report) { r.Said++ })
	return nil
}
