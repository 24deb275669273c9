# What the fleet promises, against a mock of AWS.
mock_provider "aws" {}

run "keyed_by_name" {
  assert {
    condition     = keys(aws_instance.this) == ["vm-1", "vm-2"] && keys(output.vms) == ["vm-1", "vm-2"]
    error_message = "a machine has its hostname as its key, so that another one's going leaves it alone"
  }
  assert {
    condition     = aws_instance.this["vm-2"].tags == tomap({ Name = "lablink-test-vm-2", lablink = "lablink-test", lablink-hostname = "vm-2", lablink-pool = "gpu" })
    error_message = "tags say of which deployment, name and pool it is"
  }
  assert {
    condition     = alltrue([for hostname, instance in aws_instance.this : instance.volume_tags == instance.tags])
    error_message = "its volumes say the same"
  }
}

run "encrypted_volumes" {
  assert {
    condition     = alltrue([for instance in aws_instance.this : instance.root_block_device[0].encrypted])
    error_message = "what people leave on a disk is encrypted"
  }
}

run "metadata_for_the_machine_itself_alone" {
  assert {
    condition     = alltrue([for instance in aws_instance.this : instance.metadata_options[0].http_tokens == "required" && instance.metadata_options[0].http_endpoint == "enabled"])
    error_message = "metadata is given to who has a token (IMDSv2)"
  }
  assert {
    condition     = alltrue([for instance in aws_instance.this : instance.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "and no hop further"
  }
}

run "nobody_comes_in" {
  assert {
    condition     = alltrue([for instance in aws_instance.this : !instance.associate_public_ip_address])
    error_message = "no machine has a public address"
  }
  assert {
    condition     = alltrue([for instance in aws_instance.this : instance.vpc_security_group_ids == toset([var.security_group_id])])
    error_message = "each is in the group that lets nobody in, and in no other"
  }
}

run "a_role_reads_its_own_join_secret_and_no_more" {
  assert {
    condition = alltrue([for hostname, policy in aws_iam_role_policy.this : jsondecode(policy.policy).Statement == [{
      Effect    = "Allow"
      Action    = "secretsmanager:GetSecretValue"
      Resource  = aws_secretsmanager_secret.join[hostname].arn
      Condition = { ArnEquals = { "ec2:SourceInstanceARN" = aws_instance.this[hostname].arn } }
    }]])
    error_message = "the instance that a machine is now reads the secret with its own join token, and nobody else does"
  }
  assert {
    condition     = alltrue([for hostname, profile in aws_iam_instance_profile.this : profile.role == "lablink-test-vm-${hostname}" && aws_instance.this[hostname].iam_instance_profile == profile.name])
    error_message = "it has its own role"
  }
  assert {
    condition     = alltrue([for role in aws_iam_role.this : role.path == "/lablink-test/vm/" && jsondecode(role.assume_role_policy).Statement[0].Principal == { Service = "ec2.amazonaws.com" }])
    error_message = "roles have the deployment's path, which the allocator may not leave, and are EC2's to take"
  }
}

run "the_accounts_boundary_is_kept" {
  variables {
    permissions_boundary = "arn:aws:iam::123456789012:policy/boundary"
  }
  assert {
    condition     = alltrue([for role in aws_iam_role.this : role.permissions_boundary == var.permissions_boundary])
    error_message = "no role goes beyond the boundary"
  }
}

run "no_token_in_the_state" {
  assert {
    condition     = { for hostname, secret in aws_secretsmanager_secret.join : hostname => secret.name } == { vm-1 = "lablink-test/join/vm-1", vm-2 = "lablink-test/join/vm-2" }
    error_message = "a machine's secret is named after it; what is in it, the allocator writes"
  }
  assert {
    condition     = alltrue([for secret in aws_secretsmanager_secret.join : secret.recovery_window_in_days == 0])
    error_message = "a name is free at once for the next machine of that name"
  }
}

run "as_said_or_as_the_defaults" {
  assert {
    condition     = aws_instance.this["vm-1"].ami == "ami-00000000000000001" && aws_instance.this["vm-1"].instance_type == "t3.large" && aws_instance.this["vm-1"].root_block_device[0].volume_size == 40
    error_message = "a machine that says nothing is as the defaults"
  }
  assert {
    condition     = aws_instance.this["vm-2"].ami == "ami-00000000000000002" && aws_instance.this["vm-2"].instance_type == "g5.xlarge" && aws_instance.this["vm-2"].root_block_device[0].volume_size == 200
    error_message = "any image, type and size can be chosen"
  }
  assert {
    condition     = aws_instance.this["vm-1"].subnet_id == "subnet-1" && aws_instance.this["vm-2"].subnet_id == "subnet-9"
    error_message = "machines are dealt out to the subnets, unless one is named"
  }
}

run "boot_installs_the_client" {
  assert {
    condition     = strcontains(local.boot["vm-1"], "pip install -q --no-input --disable-pip-version-check 'lablink[hub]==1.0'")
    error_message = "the client comes from client_package, with what the hub needs"
  }
  assert {
    condition     = strcontains(local.boot["vm-1"], "lablink-client install --url 'https://lablink.example.org' --join-secret 'lablink-test/join/vm-1'")
    error_message = "the client is told where to enrol and where its token is"
  }
  assert {
    condition     = yamldecode(local.boot["vm-2"]).hostname == "vm-2" && yamldecode(local.boot["vm-2"]).write_files[0].path == "/var/lib/cloud/scripts/per-boot/lablink"
    error_message = "the machine is named as its key, boots by itself, and takes a boot up again that went wrong"
  }
  assert {
    condition     = aws_instance.this["vm-1"].user_data_base64 == base64gzip(local.boot["vm-1"])
    error_message = "and this is what the machine is given"
  }
}

run "a_wheel_is_installed_with_what_the_hub_needs" {
  variables {
    client_package = "https://files.example.org/lablink-1.0-py3-none-any.whl#sha256=${sha256("")}"
  }
  assert {
    condition     = strcontains(local.boot["vm-1"], "'lablink[hub] @ ${var.client_package}'")
    error_message = "and its checksum is still looked at"
  }
}

run "boot_reports_its_phases" {
  assert {
    condition     = alltrue([for phase in ["cloud-init", "client", "failed"] : strcontains(local.boot["vm-1"], phase)]) && strcontains(local.boot["vm-1"], "/dev/console")
    error_message = "each phase is kept for the client, and told to the console for when there is none"
  }
}

run "nothing_secret_in_user_data" {
  assert {
    condition     = !can(regex("(?i)token|password|BEGIN|AKIA", replace(local.boot["vm-1"], "/#.*/", "")))
    error_message = "user-data has nothing that is worth stealing"
  }
}

run "a_startup_script_runs_first" {
  variables {
    startup_script = "#!/bin/bash\napt-get install -y blender # 'quotes' and $${braces} are kept\n"
  }
  assert {
    condition     = base64decode(yamldecode(local.boot["vm-1"]).write_files[1].content) == var.startup_script
    error_message = "the user's script is on the machine as it was given"
  }
  assert {
    condition     = can(regex("(?s)phase startup-script.*/usr/local/lib/lablink/startup-script.*phase client", local.boot["vm-1"]))
    error_message = "and runs before the client"
  }
}

run "a_users_image_runs" {
  variables {
    client_package = null
    image          = "ghcr.io/lab/desktop:1.0"
  }
  assert {
    condition     = strcontains(local.boot["vm-1"], "docker pull -q 'ghcr.io/lab/desktop:1.0'") && !strcontains(local.boot["vm-1"], "pip install")
    error_message = "the client is the one in the image"
  }
  assert {
    condition     = strcontains(local.boot["vm-1"], "LABLINK_ALLOCATOR_URL='https://lablink.example.org'") && strcontains(local.boot["vm-1"], "LABLINK_JOIN_SECRET='lablink-test/join/vm-1'")
    error_message = "it is told where to enrol and where its token is"
  }
}

run "the_client_may_be_in_the_ami" {
  variables {
    client_package = null
  }
  assert {
    condition     = strcontains(local.boot["vm-1"], "lablink-client install") && !strcontains(local.boot["vm-1"], "pip install") && !strcontains(local.boot["vm-1"], "docker")
    error_message = "nothing is fetched"
  }
}

run "user_data_fits" {
  variables {
    startup_script = "#!/bin/bash\n${join("", [for number in range(0, 749) : format("%012d", number * 977)])}"
  }
  assert {
    condition     = length(var.startup_script) == 9000 && length(local.boot["vm-1"]) < 16384
    error_message = "the longest startup script still fits into 16 kB"
  }
}

run "no_machines_are_no_error" {
  variables {
    vms = {}
  }
  assert {
    condition     = length(aws_instance.this) == 0 && length(output.vms) == 0
    error_message = "a fleet may have none"
  }
}
