from comfy_execution.told_clients import SLOT, ToldClients


def test_the_last_end_of_each_client_is_known_to_the_next_process():
    memory = bytearray(8 + 3 * SLOT.size + 5)
    told = ToldClients(memory, 8, len(memory))
    assert (told.last_end("a"), told.highest()) == (0, 0)
    for client, ended in (("a", 1), ("\ud800", 2), ("a", 5), ("a", 4)):
        told.note(client, ended)
    again = ToldClients(memory, 8, len(memory))
    assert [again.last_end(client) for client in ("a", "\ud800", "b")] == [5, 2, 0] and again.highest() == 5
    assert memory[:8] == bytes(8) and memory[-5:] == bytes(5)


def test_clients_that_were_told_last_keep_their_slots():
    memory = bytearray(2 * SLOT.size)
    told = ToldClients(memory, 0, len(memory))
    for client, ended in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        told.note(client, ended)
    again = ToldClients(memory, 0, len(memory))
    assert [again.last_end(client) for client in "abc"] == [3, 0, 4]
    again.note("d", 5)
    assert [again.last_end(client) for client in "acd"] == [0, 4, 5]
