# A workshop of an afternoon: 25 desktops with a GPU. Ask AWS in time for 100 vCPUs of "Running On-Demand G and VT instances".
# The evening before: terraform apply, then `lablink fleet grow 25` on the allocator. Afterwards: `lablink fleet destroy`.
# The machines cost about 13 dollars an hour together.
name     = "lablink-workshop"
region   = "us-east-1"
zones    = ["a", "b", "c", "d"]
bucket   = "lablink-workshop-7f3a"
hostname = "workshop.example.org"

admin_cidrs = ["192.0.2.7/32"]
ssh_key     = "ada"

allocator = { images = { allocator = "ghcr.io/example-lab/lablink-allocator-aws:0.1.0" } }

machines = {
  # An Ubuntu with NVIDIA's driver, such as AWS' Deep Learning Base GPU AMI: its id in this region.
  ami_id         = "ami-0123456789abcdef0"
  instance_type  = "g4dn.xlarge"
  disk_gb        = 100
  client_package = "https://files.example.org/lablink-0.1.0-py3-none-any.whl#sha256=0000000000000000000000000000000000000000000000000000000000000000"
  startup_script = <<-END
    #!/bin/bash
    set -e
    export DEBIAN_FRONTEND=noninteractive
    curl -fsS https://dl.google.com/linux/linux_signing_key.pub | gpg --dearmor -o /usr/share/keyrings/google.gpg
    echo "deb [arch=amd64 signed-by=/usr/share/keyrings/google.gpg] https://dl.google.com/linux/chrome-remote-desktop/deb stable main" >/etc/apt/sources.list.d/chrome-remote-desktop.list
    apt-get update -q
    apt-get install -q -y chrome-remote-desktop xfce4 dbus-x11
    echo "exec startxfce4" >/etc/chrome-remote-desktop-session
  END
}

# Four hours each, and only for whom the workshop has invited.
settings = ["pool.lease_seconds=14400", "access.domains=[example.org]"]
