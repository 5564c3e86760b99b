// Stands for the SPIFFE CSI driver, whose module can't be had from the Go proxy: it mounts the folder of the Workload API's
// socket into pods that have a volume csi: {driver: csi.spiffe.io, readOnly: true}, and tells the kubelet of itself.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	name     = "csi.spiffe.io"
	endpoint = "/run/csi-spiffe.sock"
)

type driver struct {
	csi.UnimplementedNodeServer
	registration.UnsafeRegistrationServer
	sockets string
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: csi-driver KUBELET_FOLDER SOCKET_FOLDER")
	}
	served := &driver{sockets: os.Args[2]}
	node, registrar := grpc.NewServer(), grpc.NewServer()
	csi.RegisterNodeServer(node, served)
	registration.RegisterRegistrationServer(registrar, served)
	go serve(node, endpoint)
	// The kubelet looks into this folder, and asks whoever listens there what it is.
	serve(registrar, filepath.Join(os.Args[1], "plugins_registry", name+"-reg.sock"))
}

func serve(server *grpc.Server, path string) {
	_ = os.Remove(path) // what an earlier one left
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}

func (*driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: name, Endpoint: endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (*driver) NotifyRegistrationStatus(_ context.Context, told *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered: %t %s", told.PluginRegistered, told.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func (*driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node"}, nil
}

// Nothing beyond mounting.
func (*driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, asked *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	// As the real one does.
	if !asked.Readonly || asked.VolumeContext["csi.storage.k8s.io/ephemeral"] != "true" {
		return nil, status.Error(codes.InvalidArgument, "the volume should be ephemeral and have readOnly: true")
	}
	if err := os.MkdirAll(asked.TargetPath, 0o750); err != nil {
		return nil, err
	}
	log.Printf("mounting at %s", asked.TargetPath)
	if said, err := exec.Command("mount", "--bind", d.sockets, asked.TargetPath).CombinedOutput(); err != nil {
		return nil, status.Error(codes.Internal, string(said))
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (*driver) NodeUnpublishVolume(_ context.Context, asked *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	log.Printf("unmounting %s", asked.TargetPath)
	// It may be gone already; then only the folder is left, or nothing.
	_ = exec.Command("umount", asked.TargetPath).Run()
	if err := os.Remove(asked.TargetPath); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
