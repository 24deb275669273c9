# What AWS would answer, for tests of the platform and its examples.
mock_data "aws_region" {
  defaults = { name = "eu-central-1" }
}
mock_data "aws_partition" {
  defaults = { partition = "aws" }
}
mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}
mock_data "aws_ami" {
  defaults = { id = "ami-0000000000000abcd" }
}
mock_resource "aws_iam_policy" {
  defaults = { arn = "arn:aws:iam::123456789012:policy/lablink-test-vm" }
}
mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/flow" }
}
mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/lablink-test/flow" }
}
mock_resource "aws_eip" {
  defaults = { public_ip = "198.51.100.7" }
}
mock_resource "aws_db_instance" {
  defaults = {
    address            = "lablink-test.abc.eu-central-1.rds.amazonaws.com"
    port               = 5432
    master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds", kms_key_id = "k", secret_status = "active" }]
  }
}
