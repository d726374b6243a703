"""The Lightning side: it moves data between the rooms below, shards it over processes, and writes the result.

`Trainer.predict` calls these hooks, in this order. `all`: every process; `machine`: one process of each machine;
`first`: the first of all processes, whose result, or mistake, the others get. Processes wait for each other in what the
last column names; nothing else is collective.

| hook                   | object               | on      | what happens                                 | collective  |
|------------------------|----------------------|---------|----------------------------------------------|-------------|
| prepare_data           | TokenDataModule      | machine | tokenize a dataset into its cache            | barrier     |
| prepare_data           | AttributionHarvester | machine | download the run                             | barrier     |
| setup                  | TokenDataModule      | all     | open the tokens                              |             |
| setup                  | StorageWriter        | all     | load and check; find the harvest, deal out   | gather, max |
| setup                  | AttributionHarvester | all     | allocate the sums                            |             |
| predict_dataloader     | TokenDataModule      | all     | the batches that are dealt out               | barrier     |
| on_predict_start       | HarvestProgress      | all     | start the clock                              |             |
| on_predict_start       | StorageWriter        | all     | find or read targets, restore committed sums | gather      |
| on_predict_start       | AttributionHarvester | all     | build the engine for the targets             |             |
| on_predict_epoch_start | StorageWriter        | all     | from now on signals wait for a step's end    |             |
| predict_step           | AttributionHarvester | all     | add a batch to the sums                      |             |
| on_predict_batch_end   | HarvestProgress      | all     | show and log the rate                        |             |
| on_predict_batch_end   | StorageWriter        | all     | agree on: go on, commit, or stop             | max, gather |
| on_predict_epoch_end   | StorageWriter        | all     | commit, sum over processes; `first` writes   | gather, sum |
| on_predict_end         | HarvestProgress      | all     | say how it ended                             |             |
| teardown               | StorageWriter        | all     | leave signals to who listened before         |             |

`predict_step` and `on_predict_batch_end` repeat for every step. After an exception Lightning calls `on_exception` in
place of `teardown`: `HarvestProgress` falls silent, and `StorageWriter` leaves nothing of a harvest without a commit.
"""
